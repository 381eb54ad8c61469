// The two kernels that do not walk over logits' rows: mean's divisor, and the scaling of a finished gradient.
#pragma once
#include "jobs.h"

namespace imae {

constexpr int kSmallThreads = 256;  // a guess

// Before a forward kernel of several blocks: part of the sum of the targets' weights from each block, and its ticket.
template <class S>
__global__ void __launch_bounds__(kSmallThreads) sum_target_weights(const Rows rows, Workspace* workspace) {
  double targets = 0;
  constexpr int kBatch = kCountRows / kSmallThreads;  // labels that a thread reads at once
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kCountRows + threadIdx.x; first < rows.N;
       first += static_cast<int64_t>(gridDim.x) * kCountRows) {
    int64_t y[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t i = first + k * kSmallThreads;
      y[k] = i < rows.N ? rows.label(i) : rows.ignore_index;
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t i = first + k * kSmallThreads;
      if (i < rows.N) targets += as_label<S>(rows, i, y[k]).weight;
    }
  }
  targets = block_sum({0, 0, targets}).targets;
  if (threadIdx.x != 0) return;
  workspace->counts[blockIdx.x] = targets;
  if (blockIdx.x == 0) workspace->ticket = 0;
}

// grad *= *by, for count elements that lie one after the other; reads nothing but `by` if that is 1. Where a factor
// that is infinite or NaN would make NaN of the zeros of rows that do not count, it goes row by row and leaves those
// alone.
template <class T>
__global__ void __launch_bounds__(kSmallThreads) scale_kernel(const __grid_constant__ Scale s) {
  using S = ScalarOf<T>;
  const S factor = s.by_is_double ? static_cast<S>(*static_cast<const double*>(s.by))
                                  : static_cast<S>(*static_cast<const float*>(s.by));
  if (factor == 1) return;
  T* grad = static_cast<T*>(s.grad);
  if (factor - factor != 0) {
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * kSmallThreads + threadIdx.x; i < s.N;
         i += static_cast<int64_t>(gridDim.x) * kSmallThreads) {
      if (label_of<S>(s, i).ignored) continue;
      T* row = grad + s.grad_view.row(i);
      for (int64_t j = 0; j < s.C; ++j) {
        T& at = row[j * s.grad_view.class_stride];
        narrow(S(widen(at) * factor), at);
      }
    }
    return;
  }
  constexpr int kTile = kSmallThreads * Pack<T>::kSize;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kTile; first < s.count;
       first += static_cast<int64_t>(gridDim.x) * kTile) {
    const Span<T> span(grad + first, static_cast<int>(s.count - first < kTile ? s.count - first : kTile));
    for (int p = threadIdx.x; p < span.packs; p += kSmallThreads) {
      Pack<T> x = span.load(p);
      x.set([&](int e) { return x.at(e) * factor; });
      store_pack(grad + first + span.first(p), x);
    }
    const int edge = span.edge(threadIdx.x);
    if (edge >= 0) narrow(S(widen(span.begin[edge]) * factor), grad[first + edge]);
  }
}

}  // namespace imae
