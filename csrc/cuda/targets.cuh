// What the kernels of dense and two-label targets share: a warp takes a row of few classes, a block a longer one, and
// its lanes take neighbouring classes, so that they read neighbouring addresses. A row is not held on chip: all but the
// first time, it is read from a cache. Not measured: that, and every number here, is a guess.
#pragma once
#include "small.cuh"

namespace imae {

constexpr int kTargetThreads = 256;       // of a block; a guess
constexpr int64_t kTargetWarpRow = 1024;  // classes that a warp takes alone; a guess

// Blocks on an SM that registers must allow: fewer than elsewhere, for a lane holds sums beside what the formulas need.
template <class S>
constexpr int kTargetBlocks = sizeof(S) == 8 ? 1 : 2;

// Every lane of the row gets all lanes' together, by `merge`, in a fixed order. What is merged consists of words.
template <int kLanes, class X>
__device__ __forceinline__ X merge_lanes(X x) {
  constexpr int kWords = sizeof(X) / 4;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    X other;
#pragma unroll
    for (int w = 0; w < kWords; ++w)
      reinterpret_cast<unsigned*>(&other)[w] =
          __shfl_xor_sync(0xffffffffu, reinterpret_cast<const unsigned*>(&x)[w], step);
    x = merge(x, other);
  }
  if constexpr (kLanes > 32) {
    __shared__ X part[kLanes / 32];
    __syncthreads();  // the parts of the row before have been read
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();  // every warp's part is written before any is read
    x = part[0];
    for (int w = 1; w < kLanes / 32; ++w) x = merge(x, part[w]);
  }
  return x;
}

// What the gradient of row i is multiplied by. K: Dense or Mixed.
template <class S, class K>
__device__ __forceinline__ S upstream(const K& of, int64_t i) {
  return static_cast<const S*>(of.grad_output)[of.grad_output_is_scalar ? 0 : i] / *static_cast<const S*>(of.divisor);
}

// Job::row<kLanes>(i): a row's value and gradient, by every lane of the row; what it adds to the sums over rows.
template <class Job, int kLanes>
__global__ void __launch_bounds__(kTargetThreads, kTargetBlocks<typename Job::S>)
    target_kernel(const __grid_constant__ Job job) {
  constexpr int kRows = kTargetThreads / kLanes;  // of a block, at a time
  Totals totals{0, 0, 0};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes; i < job.of.N;
       i += static_cast<int64_t>(gridDim.x) * kRows) {
    const Totals of_row = job.template row<kLanes>(i);
    if (threadIdx.x % kLanes == 0) totals = totals + of_row;
  }
  if (!job.reduction.divisor || !grid_sum(totals, job.workspace->part, &job.workspace->ticket)) return;
  if (threadIdx.x == 0) put_reduction<typename Job::S>(job.reduction, totals);
}

}  // namespace imae
