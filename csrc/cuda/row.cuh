// Rows whose classes lie next to one another. kLanes threads share a row, and each holds kPacks packs of 16 bytes of
// it in registers, in the logits' own type: as long as kLanes * kPacks packs hold the row, it is read once and its
// gradient written once, 16 bytes at a time but for the ends of a row that is not aligned.
// A longer row is taken in chunks. The last one is still in registers when the sums are known; the others are read
// again in reverse order, the latest of them from the L2 cache.
#pragma once
#include "jobs.h"

namespace imae {

template <int kLanes>
constexpr int kRowThreads = kLanes < 256 ? 256 : kLanes;

// The packs of one thread: number k of chunk c is pack (c * kPacks + k) * kLanes + lane of the row.
template <class T, int kLanes, int kPacks>
struct Chunk {
  using S = ScalarOf<T>;
  Pack<T> x[kPacks];

  static __device__ __forceinline__ int pack(int chunk, int k) {
    return (chunk * kPacks + k) * kLanes + static_cast<int>(threadIdx.x % kLanes);
  }

  __device__ __forceinline__ void read(const Span<T>& z, int chunk) {
    const Pack<T> nothing = filled<T>(-Device<S>::infinity());
    const int packs = z.packs();
    // the whole packs first, so that all of them are on their way before the ends are put together
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      x[k] = nothing;
      if (z.whole(pack(chunk, k))) x[k] = z.load(pack(chunk, k));
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int p = pack(chunk, k);
      if (p < packs && !z.whole(p)) z.load_part(p, x[k]);
    }
  }

  // The label is no other class: in its place goes what neither maximum nor sum sees.
  __device__ __forceinline__ void mask(const Span<T>& z, int chunk, int y) {
    replace(z, chunk, y, -Device<S>::infinity());
  }

  __device__ __forceinline__ void replace(const Span<T>& z, int chunk, int j, S value) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int e_of_j = j - z.first(pack(chunk, k));
      if (static_cast<unsigned>(e_of_j) < static_cast<unsigned>(Pack<T>::kSize))
        for_elements<T>([&](int e) {  // without a branch, which the compiler would make a run-time index
          narrow(e == e_of_j ? value : S(widen(x[k].at[e])), x[k].at[e]);
        });
    }
  }

  // body(x) for every element, those outside the row and the label as -infinity
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) for_elements<T>([&](int e) { body(widen(x[k].at[e])); });
  }

  // This thread's sums, relative to the maximum over its warp's part of the row.
  __device__ __forceinline__ Sums<S> sums(const Span<T>& z, int chunk, int y, bool margin) const {
    Sums<S> s = no_sums<S>();
    for_each([&](S v) { s.max = v > s.max ? v : s.max; });
    s.max = group_max<(kLanes < 32 ? kLanes : 32)>(s.max);
    const S m = finite_or_zero(s.max);
    for_each([&](S v) { s.sum_exp += fast_exp(v - m); });
    if (margin) return s;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int first = z.first(pack(chunk, k));
      for_elements<T>([&](int e) {
        if (!z.has(first + e) || first + e == y) return;
        s.sum += widen(x[k].at[e]) - m;
        s.count += 1;
      });
    }
    return s;
  }

  __device__ __forceinline__ void write_gradient(const Span<T>& z, int chunk, int y, bool ignored,
                                                 const Coefficients<S>& c, T* grad) {
    const int packs = z.packs();
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      for_elements<T>([&](int e) { narrow(ignored ? S(0) : gradient(c, S(widen(x[k].at[e]))), x[k].at[e]); });
    if (!ignored && y >= 0) replace(z, chunk, y, c.g_y);
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      if (pack(chunk, k) < packs) write_pack(grad, z.first(pack(chunk, k)), z.count, x[k]);
  }
};

template <class Job, int kLanes, int kPacks>
__global__ void __launch_bounds__(kRowThreads<kLanes>) row_kernel(const __grid_constant__ Job job) {
  using T = typename Job::T;
  using S = typename Job::S;
  constexpr int kRows = kRowThreads<kLanes> / kLanes;  // of a block, at a time
  const auto& rows = job.rows;
  const S scale = job.scale();
  Totals totals{0, 0, 0};
  int turn = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes; i < rows.N;
       i += static_cast<int64_t>(gridDim.x) * kRows) {
    const Label t = label_of(rows, i);
    const Span<T> z(static_cast<const T*>(rows.logits) + rows.logits_view.row(i), static_cast<int>(rows.C));
    const int chunks = (z.packs() + kLanes * kPacks - 1) / (kLanes * kPacks);
    Chunk<T, kLanes, kPacks> chunk;
    Coefficients<S> c{0, 0, 0, 0};
    // a short row is not worth waiting for its label; a long one is not worth reading if it is ignored
    if (kLanes <= 32 || !t.ignored) chunk.read(z, Job::kForward ? 0 : chunks - 1);
    if constexpr (Job::kForward) {
      if (t.ignored) {
        if (threadIdx.x % kLanes == 0) job.ignore(i);
      } else {
        const S z_y = t.y >= 0 ? widen(z.begin[t.y]) : S(0);
        Sums<S> sums = no_sums<S>();
        for (int k = 0;;) {
          chunk.mask(z, k, t.y);
          sums = merge(sums, chunk.sums(z, k, t.y, job.loss.margin));
          if (++k == chunks) break;
          chunk.read(z, k);
        }
        constexpr int kGroup = kLanes < 32 ? kLanes : 32;
        sums.sum_exp = group_sum<kGroup>(sums.sum_exp);
        if (!job.loss.margin) sums.sum = group_sum<kGroup>(sums.sum), sums.count = group_sum<kGroup>(sums.count);
        if constexpr (kLanes > 32) sums = across_warps<kLanes / 32>(sums, turn ^= 1);
        c = job.evaluate(i, t, sums, z_y, scale, threadIdx.x % kLanes == 0, totals);
      }
    } else {
      c = job.saved(i, scale);
    }
    if (rows.grad) {
      T* grad = static_cast<T*>(rows.grad) + rows.grad_view.row(i);
      for (int k = chunks - 1;;) {
        chunk.write_gradient(z, k, t.y, t.ignored, c, grad);
        if (--k < 0) break;
        if (!t.ignored) chunk.read(z, k);
      }
    }
  }
  job.finish(totals);
}

}  // namespace imae
