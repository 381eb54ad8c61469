// Short rows that lie one after the other, of any length: a block takes a tile of kTileRows rows as one run of bytes,
// so that all but its two ends are read and written 16 bytes at a time even if no row is aligned. It is staged in
// shared memory, where each thread has a row to itself and puts the gradient in place of the logits.
// The formulas, too, are evaluated once for a thread's row: for few classes they cost more than the softmax.
#pragma once
#include "jobs.h"

namespace imae {

constexpr int kTileRows = 128;  // and threads

template <class T>
constexpr size_t tile_bytes(int64_t C) {
  return kTileRows * static_cast<size_t>(C) * sizeof(T) + 16;  // it begins as far off alignment as in memory
}

// A row in shared memory.
template <class P, class T>
__device__ __forceinline__ P read_row(const T* z, int C, int y, bool more) {
  using S = ScalarOf<T>;
  P s = no_classes<P>();
  for (int j = 0; j < C; ++j) {
    const S v = widen(z[j]);
    if (j != y) s.max = larger(s.max, v);
  }
  const S m = finite_or_zero(s.max);
  for (int j = 0; j < C; ++j) {
    const S v = widen(z[j]) - m;
    if (j != y) s.add(P::of(v, more), more);
  }
  return s;
}

template <class Job>
__global__ void __launch_bounds__(kTileRows) tile_kernel(const __grid_constant__ Job job) {
  using T = typename Job::T;
  using S = typename Job::S;
  IMAE_DYNAMIC_SHARED(bytes);
  T* tile = reinterpret_cast<T*>(bytes);
  const auto& rows = job.rows;
  const int C = static_cast<int>(rows.C);
  const S scale = job.agree_on_scale();
  Totals totals{0, 0, 0};
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kTileRows; first < rows.N;
       first += static_cast<int64_t>(gridDim.x) * kTileRows) {
    const int count = static_cast<int>(rows.N - first < kTileRows ? rows.N - first : kTileRows);
    const Span<T> span(static_cast<const T*>(rows.logits) + first * C, count * C);
    T* begin = tile + (span.head > 0 ? Pack<T>::kSize - span.head : 0);  // so that its packs are aligned here, too
    for (int p = threadIdx.x; p < span.packs; p += kTileRows)
      copy_pack_async(begin + span.first(p), span.begin + span.first(p));
    const int edge = span.edge(threadIdx.x);
    if (edge >= 0) begin[edge] = span.begin[edge];
    const int64_t i = first + threadIdx.x;
    const bool present = static_cast<int>(threadIdx.x) < count;
    Label<S> t = present ? label_of<S>(rows, i) : Label<S>{-1, true, S(0)};
    wait_for_copies();
    __syncthreads();  // the tile is there
    if (present) {
      T* z = begin + threadIdx.x * C;
      Coefficients<S> c{0, 0, 0, 0};
      if constexpr (Job::kForward) {
        if (t.ignored)
          job.ignore(i);
        else
          c = job.evaluate(
              i, t,
              read_row<typename Job::Part>(z, C, t.y, job.wants_more()).statistics(t.y >= 0 ? S(widen(z[t.y])) : S(0)),
              scale, true, totals);
      } else {
        c = job.saved(i, scale, t);
      }
      if (Job::kGradient && rows.grad) {
        const S after = job.after(i);
        for (int j = 0; j < C; ++j) narrow(t.ignored ? S(0) : gradient(c, S(widen(z[j]))) * after, z[j]);
        if (!t.ignored && t.y >= 0) narrow(c.g_y * after, z[t.y]);
      }
    }
    __syncthreads();  // every row's gradient is in place
    if (Job::kGradient && rows.grad) {
      T* grad = static_cast<T*>(rows.grad) + first * C;
      if (is_aligned(grad + span.head)) {
        for (int p = threadIdx.x; p < span.packs; p += kTileRows)
          store_pack(grad + span.first(p), load_pack(begin + span.first(p)));
        if (edge >= 0) grad[edge] = begin[edge];
      } else {  // a gradient that lies otherwise than the logits
        for (int j = threadIdx.x; j < span.count; j += kTileRows) grad[j] = begin[j];
      }
    }
    __syncthreads();  // the tile may be overwritten
  }
  job.finish(totals);
}

}  // namespace imae
