// A block of rows of class labels is read: their statistics, with the exponentials kept.
//
// Rows are taken in groups, whose sums are gathered into vectors with a lane for each row.
#pragma once
#include "../rows.h"
#include "../steps.h"
#include "elements.h"
#include "group.h"
#include "isa.h"
#include "lanes.h"
#include "simd.h"
#include "sweeps.h"

namespace imae::IMAE_ISA {

// One row, its maximum found first: for a sum that over- or underflowed without that.
template <int kSums, class T>
IMAE_INLINE void read_one(const Rows& r, Block<T>& block, int k, int l) {
  using S = ScalarOf<T>;
  Statistics<typename Vector<S>::Real>& found = block.statistics[k];
  const int64_t y = block.labels[k][l];
  const T* z = static_cast<const T*>(r.logits) + r.logits_view.row(block.group[k].first + l);
  const auto one = read_row<kSums>(block.row(r.C, k, l), block.kept, z, r.C, y);
  found.shift[l] = one.shift;
  found.sum_exp[l] = one.sum_exp;
  found.sum[l] = one.sum;
  found.z_y[l] = one.z_y;
}

// Rows in one sweep: not the maximum is subtracted but the label's logit, which is known.
// In two sweeps where the maximum is wanted.
template <int kSums, class T>
IMAE_INLINE void read_rows(const Rows& r, Block<T>& block, int k, int64_t soon, int64_t later) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int kLanes = V::kLanes;
  const Group g = block.group[k];
  const Labels<S>& labels = block.labels[k];
  Statistics<Real>& found = block.statistics[k];
  const View from = r.logits_view, to = r.grad ? r.grad_view : from;
  const T* logits = static_cast<const T*>(r.logits);
  const T* grad = r.grad ? static_cast<const T*>(r.grad) : logits;
  const bool kept = block.kept, written = kept && !block.outlet.is_open();
  S* const to_keep = block.row(r.C, k, 0);
  const int64_t step = kept ? padded<S>(r.C) : 0;
  constexpr bool kMax = kSums & kFromMax;
  Real exp[kLanes], plain[kLanes], weighted[kLanes], squares[kLanes];
  alignas(64) S own[kLanes], shift[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    exp[l] = plain[l] = weighted[l] = squares[l] = Real{};
    own[l] = shift[l] = 0;
    const Sending<T> waiting = block.outlet.send(k * kLanes + l);
    if (!labels.live(l)) {
      waiting.all();
      continue;
    }
    const T* z = logits + from.row(g.first + l);
    own[l] = load_one(z + labels[l]);
    const S m = shift[l] = kMax ? finite_or_zero(maximum(z, r.C, labels[l])) : own[l];
    S* keep = to_keep + l * step;
    const BesideLong<T> beside{z + soon, z + later,
                               written ? grad + to.row(g.first + l) : reinterpret_cast<const T*>(keep)};
    const auto row = exponentiate_row<kSums>(keep, kept, z, r.C, labels[l], m, beside, waiting);
    exp[l] = row.exp;
    plain[l] = row.plain;
    weighted[l] = row.weighted;
    squares[l] = row.squares;
  }
  const Real sum = reduce_each<kLanes>(exp, Plus{});
  found = {load(shift), sum, Real{}, load(own)};
  if constexpr (kSums & kPlain) found.sum = reduce_each<kLanes>(plain, Plus{});
  if constexpr (kSums & kWeighted) found.weighted = reduce_each<kLanes>(weighted, Plus{});
  if constexpr (kSums & kSquares) found.squares = reduce_each<kLanes>(squares, Plus{});
}

// Whether exponentials of rows with a lane each are in the block's tiles.
template <class T>
IMAE_INLINE bool in_tiles(const Plan<T>& plan, int64_t C) {
  return plan.path == Path::kTile || C <= kMaxTile;
}

// Whether a map's logits are copied into the tiles class by class, and its gradient out of them. A vector that is a
// whole line of a cache needs no line for longer than it takes to read it.
constexpr bool kByClass = IMAE_VECTOR_BYTES < 64;

// A block's groups of adjacent rows, class by class, into its tiles: maps of 2^n positions put the classes of one
// position into the same few places of a cache, which hold no line for as long as it takes to read it in pieces.
template <class T>
IMAE_INLINE void read_planes(const Rows& r, Block<T>& block) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const View from = r.logits_view;
  const T* z[kBlock];
  ScalarOf<T>* tile[kBlock];
  for (int k = 0; k < kBlock; ++k) {
    z[k] = static_cast<const T*>(r.logits) + from.row(block.group[k < block.count ? k : 0].first);
    tile[k] = block.tile(k);
  }
  const int64_t C = r.C, step = from.class_stride;
  for (int64_t j = 0; j < C; ++j)
#pragma GCC unroll 8
    for (int k = 0; k < kBlock; ++k) store(tile[k] + j * kLanes, load(z[k] + j * step));
}

// A group with a lane for each row. shift(at): what is subtracted; at(j): the vector of class j. kOut: see add_lanes.
template <int kSums, bool kOut = false, class T, class Shift>
__attribute__((noinline)) void read_group(const Rows& r, const Plan<T>& plan, Block<T>& block, int k, Shift shift) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const auto y = block.labels[k].all();
  S* tile = block.tile(k);
  const auto from_tile = [=](int64_t j) __attribute__((always_inline)) { return load(tile + j * V::kLanes); };
  const auto to_tile = [=](int64_t j, Real e) __attribute__((always_inline)) { store(tile + j * V::kLanes, e); };
  if (plan.path == Path::kTile) {
    block.statistics[k] = read_lanes<kSums, kOut, S>(r.C, y, shift(from_tile), from_tile, to_tile);
    return;
  }
  const View from = r.logits_view, to = r.grad_view;
  const int64_t first = block.group[k].first, step = from.class_stride;
  const T* z = static_cast<const T*>(r.logits) + from.row(first);
  const T* later = r.grad ? static_cast<const T*>(r.grad) + to.row(first) : z;
  const int64_t later_step = r.grad ? to.class_stride : step;
  const auto fetch = [=](int64_t j) __attribute__((always_inline)) {
    __builtin_prefetch(z + j * step + kBlock * V::kLanes);  // the next block's
    __builtin_prefetch(later + j * later_step, 1);
  };
  if (in_tiles(plan, r.C)) {
    const auto put = [=](int64_t j, Real e) __attribute__((always_inline)) { fetch(j), to_tile(j, e); };
    block.statistics[k] = read_lanes<kSums, kOut, S>(r.C, y, shift(from_tile), from_tile, put);
  } else {
    const auto at = [=](int64_t j) __attribute__((always_inline)) { return load(z + j * step); };
    block.statistics[k] = read_lanes<kSums, false, S>(
        r.C, y, shift(at), at, [=](int64_t j, Real) __attribute__((always_inline)) { fetch(j); });
  }
}

// A group's logits into its tile.
template <class T>
IMAE_INLINE void fill_tile(const Rows& r, const Plan<T>& plan, Block<T>& block, int k) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const View from = r.logits_view;
  const T* logits = static_cast<const T*>(r.logits);
  if (plan.path == Path::kTile) return read_tile(block.tile(k), logits, from, r.N, r.C, block.group[k]);
  const T* z = logits + from.row(block.group[k].first);
  for (int64_t j = 0; j < r.C; ++j) store(block.tile(k) + j * kLanes, load(z + j * from.class_stride));
}

// Rows that are not done, relative to the maximum of their others.
template <int kSums, class T>
__attribute__((noinline)) void read_others(const Rows& r, const Plan<T>& plan, Block<T>& block, int k,
                                           typename Vector<ScalarOf<T>>::Ints done) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  if (plan.path == Path::kAlong) {
    for (int l = 0; l < V::kLanes; ++l)
      if (!done[l]) read_one<kSums>(r, block, k, l);
    return;
  }
  if (in_tiles(plan, r.C)) fill_tile(r, plan, block, k);
  const auto shift = block.statistics[k].shift;
  read_group<kSums>(r, plan, block, k, [=, y = block.labels[k].all()](auto at) __attribute__((always_inline)) {
    return V::select(done, shift, maximum_of_others<S>(r.C, y, at));
  });
}
template <int kSums, class T>
IMAE_INLINE bool read_again(const Rows& r, const Plan<T>& plan, Block<T>& block, int k,
                            typename Vector<ScalarOf<T>>::Ints good) {
  const auto done = good | (block.labels[k].all() < 0);
  if (all_lanes(done)) return false;
  read_others<kSums>(r, plan, block, k, done);
  return true;
}

// Again, where a sum comes near the ends of float's range.
template <int kSums, class T>
IMAE_INLINE void read_extremes(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  using S = ScalarOf<T>;
  for (int k = 0; k < block.count; ++k) {
    const auto sum = block.statistics[k].sum_exp;
    read_again<kSums>(r, plan, block, k, (sum > S(0x1p-100)) & (sum < S(0x1p40)));
  }
}

// A block whose vectors run along the classes.
template <int kSums, class T>
IMAE_INLINE void read_along(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  const auto distance = [&r, first = block.group[0].first](int64_t rows) {
    return r.logits_view.row(first + rows < r.N ? first + rows : r.N - 1) - r.logits_view.row(first);
  };
  const int64_t later = r.C <= kLater ? distance(block.count * plan.rows) : kLater;
  int64_t soon = later;
  if (is_long<T>(r.C)) {
    const int64_t near = r.C <= kSoon ? distance(kSoon / r.C) : kSoon;
    soon = near < later ? near : later;
  }
  for (int k = 0; k < block.count; ++k) read_rows<kSums>(r, block, k, soon, later);
  if constexpr (!(kSums & kFromMax)) read_extremes<kSums>(r, plan, block);
}

// Each row's own logit becomes its shift, and minus infinity takes its place in the tile. A row that does not count
// loses class 0.
template <class T>
IMAE_INLINE void take_labels_out(Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  S* tile = block.tile(k);
  const auto y = block.labels[k].all(), zero = V::set_int(0);
  const auto place = (y > zero ? y : zero) * V::kLanes + V::iota();
#pragma GCC unroll 16
  for (int l = 0; l < V::kLanes; ++l) {
    S& own = tile[place[l]];
    block.statistics[k].shift[l] = own;
    own = -V::infinity();
  }
}

// The block's tiles, in one sweep, which need not ask which class is the label's. All groups' labels are taken out
// before the first is read: a vector waits for what was just stored into a part of it.
template <int kSums, class T>
IMAE_INLINE void read_without_labels(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  for (int k = 0; k < block.count; ++k) take_labels_out(block, k);
  for (int k = 0; k < block.count; ++k)
    read_group<kSums, true>(r, plan, block, k,
                            [=, own = block.statistics[k].shift](auto) __attribute__((always_inline)) { return own; });
  read_extremes<kSums>(r, plan, block);
}

// A block with a lane for each row.
template <int kSums, class T>
IMAE_INLINE void read_in_lanes(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  using S = ScalarOf<T>;
  if (kByClass && plan.path == Path::kAcross && r.C <= kMaxTile)
    read_planes(r, block);
  else if (in_tiles(plan, r.C))
    for (int k = 0; k < block.count; ++k) fill_tile(r, plan, block, k);
  if constexpr (!(kSums & (kFromMax | kPlain)))
    if (in_tiles(plan, r.C)) return read_without_labels<kSums>(r, plan, block);
  for (int k = 0; k < block.count; ++k)
    read_group<kSums>(r, plan, block, k, [C = r.C, y = block.labels[k].all()](auto at) __attribute__((always_inline)) {
      if constexpr (kSums & kFromMax)
        return maximum_of_others<S>(C, y, at);
      else
        return maximum_of_lanes<S>(C, at);
    });
  if constexpr (!(kSums & kFromMax)) read_extremes<kSums>(r, plan, block);
}

template <int kSums, class T>
IMAE_INLINE void read_block(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  if (plan.path == Path::kAlong)
    read_along<kSums>(r, plan, block);
  else
    read_in_lanes<kSums>(r, plan, block);
}

}  // namespace imae::IMAE_ISA
