// One call for one element type: from the table of tiers to the launch. No <<<>>> here: L launches, on a GPU
// (launch.h) or in the emulator of the tests, so that both run the same code.
//   Card L::card()                        what tiers.h wants to know of the card
//   int L::blocks(kernel, wanted, shape)  how many blocks to launch for `wanted` tiles of rows, one for a block or a
//                                         cluster, in whole clusters; 0 if the card cannot run such clusters
//   void L::zero(unsigned*)               zeroes it before the next launch
//   void L::launch(kernel, blocks, shape, arguments...)
#pragma once
#include <algorithm>
#include <cstdlib>

#include "binary.cuh"
#include "cluster.cuh"
#include "dense.cuh"
#include "describe.cuh"
#include "mixed.cuh"
#include "row.cuh"
#include "small.cuh"
#include "strided.cuh"
#include "tiers.h"
#include "tile.cuh"

namespace imae {

// What the blocks of a launch are like.
struct BlockShape {
  int threads;
  size_t shared = 0;  // dynamic, bytes
  int cluster = 1;    // blocks
};

// What must have run before a forward kernel of several blocks.
template <class S, class L>
void prepare_reduction(const Forward& f, const Reduction& r, Workspace* workspace, int blocks, L& on) {
  if (blocks == 1) return;  // it counts for itself, and needs no ticket
  if (r.mean_gradient)
    on.launch(sum_target_weights<S>, count_blocks(f.N), BlockShape{kSmallThreads}, static_cast<const Rows&>(f),
              workspace);
  else if (r.loss)
    on.zero(&workspace->ticket);
}

// Whether the card can run it. rows: of a block or a cluster, at a time.
template <class Job, class Kernel, class L, class... More>
bool run_kernel(Kernel kernel, const Job& job, int64_t rows, const BlockShape& shape, L& on, More... more) {
  const int blocks = on.blocks(kernel, (job.rows.N + rows - 1) / rows, shape);
  if (blocks == 0) return false;
  if constexpr (Job::kForward && Job::kGradient)
    prepare_reduction<typename Job::S>(job.rows, job.reduction, job.workspace, blocks, on);
  on.launch(kernel, blocks, shape, job, more...);
  return true;
}

template <int kLanes, class Job, class L>
void run_rows(const Job& job, L& on) {
  constexpr int kThreads = kRowThreads<kLanes>;
  const int64_t slots = (packs_of(job.rows) + kLanes - 1) / kLanes;
  const bool twice = Job::kForward && job.rows.grad;  // in chunks, for the sums and for the gradient
  const int most = slots_to_hold(slots, twice, kThreads, on.card());
  run_kernel(row_kernel<Job, kLanes>, job, kThreads / kLanes, {kThreads, 16 * size_t(kThreads) * most}, on, most);
}

// Where the card, or the part of it that one may use, cannot run the cluster, a block takes the row in chunks.
template <class Job, class L>
void run_clusters(const Job& job, L& on) {
  if constexpr (Job::kForward && Job::kGradient) {
    const int blocks = std::max(2, blocks_to_hold(packs_of(job.rows), on.card())), lanes = 256 * blocks;
    const int most = slots_to_hold((packs_of(job.rows) + lanes - 1) / lanes, job.rows.grad, 256, on.card());
    const size_t shared = kExchangeBytes<typename Job::S> + 16 * size_t(256) * most;
    if (run_kernel(cluster_kernel<Job>, job, 1, {256, shared, blocks}, on, most)) return;
  }
  run_rows<256>(job, on);
}

template <class Job, class L>
void run_job(const Job& job, L& on) {
  switch (choose_tier(job.rows, on.card(), std::getenv("IMAE_EXT_TIER"))) {
    case Tier::kTile:
      run_kernel(tile_kernel<Job>, job, kTileRows, {kTileRows, tile_bytes<typename Job::T>(job.rows.C)}, on);
      return;
    case Tier::kRow2: return run_rows<2>(job, on);
    case Tier::kRow8: return run_rows<8>(job, on);
    case Tier::kRow32: return run_rows<32>(job, on);
    case Tier::kRow128: return run_rows<128>(job, on);
    case Tier::kRow256: return run_rows<256>(job, on);
    case Tier::kStrided: run_kernel(strided_kernel<Job>, job, kStridedThreads, {kStridedThreads}, on); return;
    case Tier::kCluster: return run_clusters(job, on);
  }
}

template <class T, class L>
void run_forward(const Forward& f, const Reduction& r, Workspace* workspace, L& on) {
  // The classic limit of a launch's parameters; beyond it a launch needs CUDA 12.1, a driver of its time, and a copy.
  static_assert(sizeof(ForwardJob<T>) + sizeof(int) <= 4096);
  run_job(ForwardJob<T>{f, r, workspace, f.formula->as<ScalarOf<T>>()}, on);
}

template <class T, class L>
void run_backward(const Backward& b, L& on) {
  if (b.N > 0) run_job(BackwardJob<T>{b}, on);
}

template <class T, class L>
void run_describe(const Describe& d, L& on) {
  static_assert(sizeof(DescribeJob<T>) + sizeof(int) <= 4096);  // as above
  if (d.N > 0) run_job(DescribeJob<T>{d, d.formula->as<ScalarOf<T>>()}, on);
}

template <class T, class L>
void run_scale(const Scale& s, L& on) {
  if (s.count == 0) return;
  constexpr int64_t kTile = kSmallThreads * Pack<T>::kSize;
  const BlockShape shape{kSmallThreads};
  on.launch(scale_kernel<T>, on.blocks(scale_kernel<T>, (s.count + kTile - 1) / kTile, shape), shape, s);
}

template <class T, class L>
void run_binary(const Binary& b, const Reduction& r, Workspace* workspace, L& on) {
  static_assert(sizeof(BinaryJob<T>) <= 4096);  // as above
  const BlockShape shape{kSmallThreads};
  const int blocks = on.blocks(binary_kernel<T>, (b.count + kSmallThreads - 1) / kSmallThreads, shape);
  if (r.divisor && blocks > 1) on.zero(&workspace->ticket);
  on.launch(binary_kernel<T>, blocks, shape, BinaryJob<T>{b, r, workspace, b.formula->as<ScalarOf<T>>()});
}

template <int kLanes, class Job, class L>
void run_target_rows(const Job& job, L& on) {
  static_assert(sizeof(Job) <= 4096);  // as above
  const BlockShape shape{kTargetThreads};
  const int64_t rows = kTargetThreads / kLanes;
  const int blocks = on.blocks(target_kernel<Job, kLanes>, (job.of.N + rows - 1) / rows, shape);
  if (job.reduction.divisor && blocks > 1) on.zero(&job.workspace->ticket);
  on.launch(target_kernel<Job, kLanes>, blocks, shape, job);
}

// Of an amount for every class, or for two labels.
template <class Job, class L>
void run_targets(const Job& job, L& on) {
  if (job.of.C <= kTargetWarpRow)
    run_target_rows<32>(job, on);
  else
    run_target_rows<kTargetThreads>(job, on);
}

template <class T, class L>
void run_dense(const Dense& d, const Reduction& r, Workspace* workspace, L& on) {
  run_targets(DenseJob<T>{d, r, workspace, d.formula->as<ScalarOf<T>>()}, on);
}

template <class T, class L>
void run_mixed(const Mixed& m, const Reduction& r, Workspace* workspace, L& on) {
  run_targets(MixedJob<T>{m, r, workspace, m.formula->as<ScalarOf<T>>()}, on);
}

}  // namespace imae
