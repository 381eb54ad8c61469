// Binary and multi-label losses on a GPU: a thread takes an element at a time, and walks on by the grid's width. It
// reads a logit and its target (and weights, if any), and writes a value or a gradient: neighbours read and write
// neighbouring addresses.
#pragma once
#include "../binary.h"
#include "small.cuh"

namespace imae {

template <class T>
struct BinaryJob {
  using S = ScalarOf<T>;
  Binary of;
  Reduction reduction;
  Workspace* workspace;
  Combination<S> combination;

  __device__ __forceinline__ S amount(int64_t i) const {
    switch (of.target_type) {
      case AmountType::kUint8: return as_amount<S>(static_cast<const uint8_t*>(of.target)[i], of);
      case AmountType::kInt32: return as_amount<S>(static_cast<const int32_t*>(of.target)[i], of);
      case AmountType::kInt64: return as_amount<S>(static_cast<const int64_t*>(of.target)[i], of);
      case AmountType::kFloat32: return as_amount<S>(static_cast<const float*>(of.target)[i], of);
      case AmountType::kFloat64: return as_amount<S>(static_cast<const double*>(of.target)[i], of);
    }
    return static_cast<S>(NAN);
  }
  static __device__ __forceinline__ S weight(const Spread& from, int64_t i) {
    return from.data ? static_cast<const S*>(from.data)[from.at(i)] : S(1);
  }

  __device__ __forceinline__ Totals element(int64_t i) const {
    const S t = amount(i), of_sample = weight(of.sample_weight, i), w = weight(of.weight, i) * of_sample;
    const bool counts = t != S(-1);
    BinaryOutcome<Device<S>> o{0, 0, 0};
    const bool live = counts && w != 0;
    if (live) {
      const S x = widen(static_cast<const T*>(of.logits)[i]);
      o = evaluate_binary<Device<S>>(combination, x, t, weight(of.pos_weight, i), t > 0 && t < 1);
      if (t != t) o = {t, t, t};  // no number from 0 to 1
    }
    if (of.value) static_cast<S*>(of.value)[i] = live ? o.value * w : S(0);
    if (of.grad) {
      const S divisor = of.divisor ? *static_cast<const S*>(of.divisor) : S(1);
      const S factor = static_cast<const S*>(of.grad_output)[of.grad_output_is_scalar ? 0 : i] / divisor;
      narrow(live ? S(o.slope * w * factor) : S(0), static_cast<T*>(of.grad)[i]);
    }
    return {live ? double(o.value * w) : 0, live ? double(o.example_weight * w) : 0, counts ? double(of_sample) : 0};
  }
};

template <class T>
__global__ void __launch_bounds__(kSmallThreads, kResidentThreads<ScalarOf<T>> / kSmallThreads)
    binary_kernel(const __grid_constant__ BinaryJob<T> job) {
  using S = ScalarOf<T>;
  Totals totals{0, 0, 0};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kSmallThreads + threadIdx.x; i < job.of.count;
       i += static_cast<int64_t>(gridDim.x) * kSmallThreads)
    totals = totals + job.element(i);
  if (!job.reduction.divisor) return;
  if (grid_sum(totals, job.workspace->part, &job.workspace->ticket) && threadIdx.x == 0)
    put_reduction<S>(job.reduction, totals);
}

}  // namespace imae
