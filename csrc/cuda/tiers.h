// How a row of logits becomes a row of gradient on a GPU: the map of this folder, and the table of tiers.
//
//   backend.cpp        finds card and stream, and calls cuda_forward or cuda_backward (entries.h)
//   dispatch.cu        by element type, to one of
//   float32.cu ...     which compile run_forward and run_backward of
//   run.h              choose a tier here, count mean's targets if there are several blocks, launch the tier's kernel
//   tile.cuh           short rows at any alignment: a thread for each row of a tile in shared memory
//   row.cuh            longer rows: 2 to 256 threads for each, its packs in shared memory
//   cluster.cuh        rows that leave an SM's shared memory no room for another
//   strided.cuh        classes that lie apart: a thread for each position
//   jobs.h             what all kernels do with a row: Forward evaluates its statistics, Backward reads coefficients
//   describe.cuh       or Describe, which writes statistics and no gradient
//   reduce.h           sums over lanes, warps, blocks and the grid, in a fixed order
//   packs.h            element types, and 16-byte packs of them
//   device.h           the arithmetic that arithmetic.h asks for
//   binary.cuh         a logit for each yes or no
//   targets.cuh        rows of other targets:
//   dense.cuh          an amount of every class
//   mixed.cuh          two labels
//   small.cuh          mean's divisor; the scaling of a finished gradient
//
// NOT MEASURED: no kernel has run on a GPU yet. That results are right is tested in an emulator; what is fast is a
// guess, reasoned from the cards' documented sizes. Each such number has the word `guess` beside it:
//   which tier takes a row      kTileRowBytes, kRowTiers, reads_in_place     IMAE_EXT_TIER=tile, row2, row8, row32,
//                                                                            row128, row256, strided or cluster
//   blocks that hold a row      blocks_to_hold                               IMAE_EXT_CLUSTER=1, 2, 4 or 8
//   shared memory of a block    slots_to_hold                                none
//   threads and registers       jobs.h, row.cuh, strided.cuh, small.cuh, targets.cuh   none
// Both variables are read at each call, and heeded where they give right results. benchmarks/gpu.sh 2 measures every
// tier against a copy; by that the numbers are to be set, and the word to go.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "../rows.h"

namespace imae {

enum class Tier : int { kTile, kRow2, kRow8, kRow32, kRow128, kRow256, kStrided, kCluster };
constexpr const char* kTierNames[] = {"tile", "row2", "row8", "row32", "row128", "row256", "strided", "cluster"};

// What the choice depends on.
struct Card {
  int64_t shared_per_block;  // bytes of shared memory that a block can have
  bool clusters;             // compute capability 9.0 and later
};

// A row's bytes, for the tile; a guess: 128 rows of up to 256 bytes leave room for 6 blocks on an SM (8.0: 163 KB).
// Rows of a multiple of 16 bytes would conflict in its banks, but those go to a row tier.
constexpr int64_t kTileRowBytes = 256;

// The row tiers, by the 16-byte packs that a row takes. More lanes than needed idle, and the formulas are evaluated
// for fewer rows at a time; with fewer lanes, a block's rows take more shared memory and each thread more time. Where
// one tier ends and the next begins is a guess.
constexpr int64_t kStaticShared = 4096;  // at most: a row kernel's, a cluster's exchange, and what the driver keeps

struct RowTier {
  Tier tier;
  int64_t packs;
};
constexpr RowTier kRowTiers[] = {
    {Tier::kRow2, 8},       // 16 rows a warp share one evaluation of the formulas
    {Tier::kRow8, 64},      // 8 lanes read 128 bytes at a time, a cache line
    {Tier::kRow32, 256},    // a warp still needs no barrier
    {Tier::kRow128, 1024},  // small blocks: while one waits at its barrier others load
    {Tier::kRow256, -1},    // any length; clusters where two such blocks do not fit on an SM
};

constexpr int kMaxCluster = 8;  // blocks; more, not every card with clusters can run

inline int64_t bytes_of(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

// Whether the rows lie one after the other, without gaps.
inline bool dense(const View& v, int64_t N, int64_t C) {
  if (v.class_stride != 1) return false;
  return N <= 1 || (v.inner == 1 ? v.outer_stride == C : C == 1 && v.inner == N && v.inner_stride == 1);
}

inline bool aligned_rows(const void* data, const View& v, int64_t N, int64_t size) {
  if (reinterpret_cast<uintptr_t>(data) % 16 != 0) return false;
  return N <= 1 || (v.outer_stride * size % 16 == 0 && (v.inner == 1 || v.inner_stride * size % 16 == 0));
}

// the most that any row has
inline int64_t packs_of(const Rows& r) { return (r.C * bytes_of(r.dtype) + 15) / 16; }

// The slots that a thread can get; it takes up 16 bytes in each. A block has `threads` of them.
inline int64_t slots_of(const Card& card, int threads) {
  return (card.shared_per_block - kStaticShared) / (16 * threads);
}

// How many slots each thread of a row kernel gets; `slots` would hold the row. A guess: two blocks on an SM, one
// loading while the other computes; or one if only that can hold the row and in chunks it would be read twice; else two
// that take it in even chunks.
inline int slots_to_hold(int64_t slots, bool twice, int threads, const Card& card) {
  const int64_t room = slots_of(card, threads), half = room / 2;
  if (slots <= (twice ? room : half)) return static_cast<int>(slots < 1 ? 1 : slots);
  const int64_t chunks = (slots + half - 1) / half;
  return static_cast<int>((slots + chunks - 1) / chunks);
}

// The blocks of 256 threads that hold a row together, a power of two: the fewest of which two fit on an SM, one loading
// while the other computes; kMaxCluster if that many are too few. Larger clusters leave more SMs idle, for theirs must
// lie together. A guess: IMAE_EXT_CLUSTER=1, 2, 4 or 8 names another number, and any gives right results.
inline int blocks_to_hold(int64_t packs, const Card& card) {
  const char* wish = std::getenv("IMAE_EXT_CLUSTER");
  const int64_t held = 256 * (slots_of(card, 256) / 2);  // packs
  for (int blocks = 1; blocks < kMaxCluster; blocks *= 2)
    if (wish ? std::atoi(wish) == blocks : packs <= blocks * held) return blocks;
  return kMaxCluster;
}

inline Tier choose_tier(const Rows& r, const Card& card) {
  const View &z = r.logits_view, &g = r.grad_view;
  if (z.class_stride != 1 || (r.grad && g.class_stride != 1)) return Tier::kStrided;
  const int64_t size = bytes_of(r.dtype);
  const bool aligned = aligned_rows(r.logits, z, r.N, size);
  if (!aligned && r.C * size <= kTileRowBytes && dense(z, r.N, r.C) && (!r.grad || dense(g, r.N, r.C)))
    return Tier::kTile;
  for (const RowTier& row : kRowTiers)
    if (packs_of(r) <= row.packs) return row.tier;
  // In chunks, the logits are read a second time only if a gradient is to be written.
  return card.clusters && r.grad && blocks_to_hold(packs_of(r), card) > 1 ? Tier::kCluster : Tier::kRow256;
}

// `wish` (IMAE_EXT_TIER) names another tier, for tests and measurements; it is heeded where it gives right results:
// a row tier wherever classes are adjacent, a cluster there if the card has them, the tile where the table could have
// chosen it, strided anywhere.
inline Tier choose_tier(const Rows& r, const Card& card, const char* wish) {
  const Tier choice = choose_tier(r, card);
  if (wish == nullptr) return choice;
  for (int i = 0; i < static_cast<int>(sizeof kTierNames / sizeof *kTierNames); ++i) {
    const Tier tier = static_cast<Tier>(i);
    if (std::string_view(wish) != kTierNames[i]) continue;
    if (tier == Tier::kStrided) return tier;
    const bool fits = dense(r.logits_view, r.N, r.C) && (!r.grad || dense(r.grad_view, r.N, r.C)) &&
                      r.C * bytes_of(r.dtype) <= kTileRowBytes;
    const bool runs = tier == Tier::kTile ? fits : choice != Tier::kStrided;
    if (runs && (tier != Tier::kCluster || card.clusters)) return tier;
  }
  return choice;
}

// A thread for each position needs many positions, or not much to do for each. How many is a guess.
inline bool reads_in_place(const Rows& r) {
  const View &z = r.logits_view, &g = r.grad_view;
  const bool adjacent = z.class_stride == 1 && (!r.grad || g.class_stride == 1);
  return adjacent || r.C <= 1024 || (z.inner_stride == 1 && z.inner >= 1024);
}

}  // namespace imae
