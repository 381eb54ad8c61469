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
  return kTileRows * static_cast<size_t>(C) * sizeof(T) + 2 * 16;  // the ends are kept in whole packs
}

// The sums over a row in shared memory.
template <class T>
__device__ __forceinline__ Sums<ScalarOf<T>> sums_of_row(const T* z, int C, int y, bool margin) {
  using S = ScalarOf<T>;
  Sums<S> s = no_sums<S>();
  for (int j = 0; j < C; ++j) {
    const S v = widen(z[j]);
    if (j != y && v > s.max) s.max = v;
  }
  const S m = finite_or_zero(s.max);
  for (int j = 0; j < C; ++j) {
    const S v = widen(z[j]) - m;
    if (j == y) continue;
    s.sum_exp += fast_exp(v);
    if (!margin) s.sum += v;
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
  const S scale = job.scale();
  Totals totals{0, 0, 0};
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kTileRows; first < rows.N;
       first += static_cast<int64_t>(gridDim.x) * kTileRows) {
    const int count = static_cast<int>(rows.N - first < kTileRows ? rows.N - first : kTileRows);
    const Span<T> span(static_cast<const T*>(rows.logits) + first * C, count * C);
    const int packs = span.packs();
    for (int p = threadIdx.x; p < packs; p += kTileRows) {
      Pack<T> x = filled<T>(S(0));
      if (span.whole(p))
        x = span.load(p);
      else
        span.load_part(p, x);
      store_pack(tile + p * Pack<T>::kSize, x);
    }
    const int64_t i = first + threadIdx.x;
    const bool present = static_cast<int>(threadIdx.x) < count;
    const Label t = present ? label_of(rows, i) : Label{-1, true};
    __syncthreads();  // the tile is there
    if (present) {
      T* z = tile + span.shift + threadIdx.x * C;
      Coefficients<S> c{0, 0, 0, 0};
      if constexpr (Job::kForward) {
        if (t.ignored)
          job.ignore(i);
        else
          c = job.evaluate(i, t, sums_of_row(z, C, t.y, job.loss.margin), t.y >= 0 ? S(widen(z[t.y])) : S(0), scale,
                           true, totals);
      } else {
        c = job.saved(i, scale);
      }
      if (rows.grad) {
        for (int j = 0; j < C; ++j) narrow(t.ignored ? S(0) : gradient(c, S(widen(z[j]))), z[j]);
        if (!t.ignored && t.y >= 0) narrow(c.g_y, z[t.y]);
      }
    }
    __syncthreads();  // every row's gradient is in place
    if (rows.grad) {
      T* grad = static_cast<T*>(rows.grad) + first * C;
      for (int p = threadIdx.x; p < packs; p += kTileRows)
        write_pack(grad, span.first(p), span.count, load_pack(tile + p * Pack<T>::kSize));
    }
    __syncthreads();  // the tile may be overwritten
  }
  job.finish(totals);
}

}  // namespace imae
