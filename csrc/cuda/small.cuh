// The two kernels that do not walk over logits' rows: mean's divisor, and the scaling of a finished gradient.
#pragma once
#include "jobs.h"

namespace imae {

constexpr int kSmallThreads = 256;

// Before a forward kernel of several blocks: part of the sum of the targets' weights from each block, and its ticket.
template <class S>
__global__ void __launch_bounds__(kSmallThreads)
    count_targets(const Rows rows, const void* class_weight, Workspace* workspace) {
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
    for (int k = 0; k < kBatch; ++k) targets += target_weight<S>(as_label<S>(rows, y[k]), class_weight);
  }
  targets = block_sum({0, 0, targets}).targets;
  if (threadIdx.x != 0) return;
  workspace->counts[blockIdx.x] = targets;
  if (blockIdx.x == 0) workspace->ticket = 0;
}

// Multiplies the rows that count by a factor of inf or NaN, a thread for a class of a row; the others stay 0.
template <class T>
__device__ __forceinline__ void scale_live_rows(const Rows& rows, ScalarOf<T> factor) {
  T* grad = static_cast<T*>(rows.grad);
  const int64_t count = rows.N * rows.C, step = static_cast<int64_t>(gridDim.x) * kSmallThreads;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * kSmallThreads + threadIdx.x; k < count; k += step) {
    const int64_t i = k / rows.C;
    if (rows.template left_out<ScalarOf<T>>(rows.label(i))) continue;
    T* at = grad + rows.grad_view.row(i) + k % rows.C * rows.grad_view.class_stride;
    narrow(ScalarOf<T>(widen(*at) * factor), *at);
  }
}

// rows.grad *= *by, a gradient without gaps. Reads nothing but `by` if that is 1, and labels only if it is not finite.
template <class T>
__global__ void __launch_bounds__(kSmallThreads) scale_kernel(const Rows rows, const void* by, bool by_is_double) {
  using S = ScalarOf<T>;
  T* const grad = static_cast<T*>(rows.grad);
  const int64_t count = rows.N * rows.C;
  const S factor =
      by_is_double ? static_cast<S>(*static_cast<const double*>(by)) : static_cast<S>(*static_cast<const float*>(by));
  if (factor == 1) return;
  if (factor - factor != 0) return scale_live_rows<T>(rows, factor);
  constexpr int kTile = kSmallThreads * Pack<T>::kSize;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kTile; first < count;
       first += static_cast<int64_t>(gridDim.x) * kTile) {
    const Span<T> span(grad + first, static_cast<int>(count - first < kTile ? count - first : kTile));
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
