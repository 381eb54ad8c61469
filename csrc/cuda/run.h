// One call for one element type: from the table of tiers to the launch. No <<<>>> here: L launches, on a GPU
// (launch.h) or in the emulator of the tests, so that both run the same code.
//   int L::blocks(kernel, wanted, threads, shared)   how many blocks to launch for `wanted` tiles of rows
//   int64_t L::shared_per_block()                    bytes of shared memory that a block can have
//   void L::zero(unsigned*)                          zeroes it before the next launch
//   void L::launch(kernel, blocks, threads, shared, arguments...)
#pragma once
#include <cstdlib>

#include "row.cuh"
#include "small.cuh"
#include "strided.cuh"
#include "tiers.h"
#include "tile.cuh"

namespace imae {

// What must have run before a forward kernel of several blocks.
template <class S, class L>
void prepare_reduction(const Forward& f, const Reduction& r, int blocks, L& on) {
  if (blocks == 1) return;  // it counts for itself, and needs no ticket
  if (r.mean_gradient)
    on.launch(count_targets<S>, kCountBlocks, kSmallThreads, 0, static_cast<const Rows&>(f), f.class_weight,
              r.workspace);
  else if (r.loss)
    on.zero(&r.workspace->ticket);
}

template <class Job, class Kernel, class L, class... More>
void run_kernel(Kernel kernel, const Job& job, int64_t rows_per_block, int threads, size_t shared, L& on,
                More... more) {
  const int blocks = on.blocks(kernel, (job.rows.N + rows_per_block - 1) / rows_per_block, threads, shared);
  if constexpr (Job::kForward) prepare_reduction<typename Job::S>(job.rows, job.reduction, blocks, on);
  on.launch(kernel, blocks, threads, shared, job, more...);
}

template <int kLanes, class Job, class L>
void run_rows(const Job& job, L& on) {
  constexpr int kThreads = kRowThreads<kLanes>;
  const int64_t slots = (packs_of(job.rows) + kLanes - 1) / kLanes;
  const int most = slots_to_hold(slots, 16 * kThreads, on.shared_per_block());
  run_kernel(row_kernel<Job, kLanes>, job, kThreads / kLanes, kThreads, 16 * size_t(kThreads) * most, on, most);
}

template <class Job, class L>
void run_job(const Job& job, L& on) {
  switch (choose_tier(job.rows, std::getenv("IMAE_EXT_TIER"))) {
    case Tier::kTile:
      return run_kernel(tile_kernel<Job>, job, kTileRows, kTileRows, tile_bytes<typename Job::T>(job.rows.C), on);
    case Tier::kRow2: return run_rows<2>(job, on);
    case Tier::kRow8: return run_rows<8>(job, on);
    case Tier::kRow32: return run_rows<32>(job, on);
    case Tier::kRow128: return run_rows<128>(job, on);
    case Tier::kRow256: return run_rows<256>(job, on);
    case Tier::kStrided: return run_kernel(strided_kernel<Job>, job, kStridedThreads, kStridedThreads, 0, on);
  }
}

template <class T, class L>
void run_forward(const Forward& f, const Reduction& r, L& on) {
  run_job(ForwardJob<T>{f, r, f.loss->as<ScalarOf<T>>()}, on);
}

template <class T, class L>
void run_backward(const Backward& b, L& on) {
  if (b.N > 0) run_job(BackwardJob<T>{b}, on);
}

template <class T, class L>
void run_scale(void* grad, int64_t count, const void* by, bool by_is_double, L& on) {
  if (count == 0) return;
  constexpr int64_t kTile = kSmallThreads * Pack<T>::kSize;
  const int blocks = on.blocks(scale_kernel<T>, (count + kTile - 1) / kTile, kSmallThreads, 0);
  on.launch(scale_kernel<T>, blocks, kSmallThreads, 0, static_cast<T*>(grad), count, by, by_is_double);
}

}  // namespace imae
