// Sums and maxima over the lanes of a row, over a block, and over the grid. All in a fixed order.
#pragma once
#include "packs.h"
#include "workspace.h"

namespace imae {

// The kLanes adjacent lanes, a power of two up to 32, that share a row.
template <int kLanes>
__device__ __forceinline__ unsigned group_mask() {
  if constexpr (kLanes == 32) return 0xffffffffu;
  return ((1u << (kLanes & 31)) - 1) << (threadIdx.x & 31 & ~(kLanes - 1));
}

template <int kLanes, class S>
__device__ __forceinline__ S group_max(S x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x = larger(x, __shfl_xor_sync(group_mask<kLanes>(), x, step));
  return x;
}

template <int kLanes, class S>
__device__ __forceinline__ S group_sum(S x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(group_mask<kLanes>(), x, step);
  return x;
}

// The statistics of a part of a row's other classes. NaN logits are kept out of max but not out of sum_exp. The sweeps
// are written over this and DescribedPart (describe.cuh); `more`: whether a call wants the sums after sum_exp.
template <class S>
struct Part {
  S max;                                 // -infinity at first
  S sum_exp;                             // of exp(z_j - max)
  S sum, count;                          // of z_j - max, and its number of terms; where a formula needs all logits
  static constexpr bool kMasks = false;  // whether a class at -infinity leaves the sums after sum_exp alone, too

  // one class, of which x is z_j less the maximum of those that it is added to
  static __device__ __forceinline__ Part of(S x, bool more) { return {x, fast_exp(x), more ? x : S(0), S(more)}; }
  // the same maximum
  __device__ __forceinline__ void add(const Part& few, bool more) {
    sum_exp += few.sum_exp;
    if (more) sum += few.sum, count += few.count;
  }
  template <int kLanes>
  __device__ __forceinline__ void add_lanes(bool more) {
    sum_exp = group_sum<kLanes>(sum_exp);
    if (more) sum = group_sum<kLanes>(sum), count = group_sum<kLanes>(count);
  }
  __device__ __forceinline__ Statistics<S> statistics(S z_y) const { return {finite_or_zero(max), sum_exp, sum, z_y}; }
};

template <class P>
__device__ __forceinline__ P no_classes() {
  return {-Device<decltype(P::max)>::infinity(), 0, 0, 0};
}

// Both together, relative to the larger maximum. An empty or vanished sum stays 0: its factor may be infinite.
template <class S>
__device__ __forceinline__ Part<S> merge(const Part<S>& x, const Part<S>& y) {
  const S max = larger(x.max, y.max), m = finite_or_zero(max);
  const S dx = finite_or_zero(x.max) - m, dy = finite_or_zero(y.max) - m;
  return {max, (x.sum_exp == 0 ? S(0) : x.sum_exp * fast_exp(dx)) + (y.sum_exp == 0 ? S(0) : y.sum_exp * fast_exp(dy)),
          (x.sum + x.count * dx) + (y.sum + y.count * dy), x.count + y.count};
}

// Over the warps of a block that works on one row. `turn` alternates from row to row: a warp may write its part of
// the next row while another still reads this one's, so the two lie apart and one barrier a row is enough.
template <int kWarps, class P>
__device__ __forceinline__ P across_warps(const P& of_warp, int turn) {
  __shared__ P part[2][kWarps];
  if (threadIdx.x % 32 == 0) part[turn][threadIdx.x / 32] = of_warp;
  __syncthreads();  // every warp's part is written before any is read
  P all = part[turn][0];
  for (int w = 1; w < kWarps; ++w) all = merge(all, part[turn][w]);
  return all;
}

__device__ __forceinline__ Totals operator+(const Totals& x, const Totals& y) {
  return {x.value + y.value, x.example_weight + y.example_weight, x.targets + y.targets};
}

// Every thread of the block gets the sum. The block has whole warps.
__device__ inline Totals block_sum(Totals t) {
  __shared__ Totals part[32];
  t = {group_sum<32>(t.value), group_sum<32>(t.example_weight), group_sum<32>(t.targets)};
  __syncthreads();  // an earlier call's parts have been read
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = t;
  __syncthreads();  // this call's are written
  Totals all = part[0];
  for (unsigned w = 1; w < blockDim.x / 32; ++w) all = all + part[w];
  return all;
}

// The whole grid's sum, to every thread of the block that comes last; false in the others. Each block leaves its
// part and draws a ticket; the last one adds the parts in the order of the blocks, whichever ran first.
__device__ inline bool grid_sum(Totals& t, Totals* part, unsigned* ticket) {
  __shared__ bool last;
  t = block_sum(t);
  if (gridDim.x == 1) return true;
  if (threadIdx.x == 0) {
    part[blockIdx.x] = t;
    __threadfence();  // the part is visible before the ticket is drawn
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();  // the other blocks' parts are read after it
  }
  __syncthreads();  // the ticket is known, and the fence stands before everyone's reads
  if (!last) return false;
  t = {0, 0, 0};
  for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x)
    t = t + Totals{__ldcg(&part[b].value), __ldcg(&part[b].example_weight), __ldcg(&part[b].targets)};
  t = block_sum(t);
  return true;
}

}  // namespace imae
