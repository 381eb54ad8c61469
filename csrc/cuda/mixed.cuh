// Two labels a row on a GPU: the mathematics of mixed.h. The logits are read twice, for the sums over the classes that
// are neither label, and for the gradient.
#pragma once
#include "../mixed.h"
#include "strided.cuh"
#include "targets.cuh"

namespace imae {

// The amounts have all weights in them. Where there is but one label, it stands for both, the other's amount is 0.
template <class S>
struct TwoLabels {
  int label[2];
  S amount[2];  // NaN where a label is no class
  S weight;     // of the row; 0: it does not count
};

template <class T>
struct MixedJob {
  using S = ScalarOf<T>;
  using D = Device<S>;
  Mixed of;
  Reduction reduction;
  Workspace* workspace;
  Combination<S> combination;

  __device__ __forceinline__ TwoLabels<S> labels_of(int64_t i) const {
    const int64_t y[2] = {of.target[i], of.other[i]};
    TwoLabels<S> t{{-1, -1}, {0, 0}, 0};
    if (y[0] == of.ignore_index) return t;
    t.weight = of.sample_weight ? static_cast<const S*>(of.sample_weight)[i] : S(1);
    const S first = static_cast<const S*>(of.lam)[of.lam_is_scalar ? 0 : i];
    t.amount[0] = first;
    t.amount[1] = of.other_lam ? static_cast<const S*>(of.other_lam)[of.other_lam_is_scalar ? 0 : i] : 1 - first;
    if (y[1] == of.ignore_index) t.amount[1] = 0;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const bool known = y[k] >= 0 && y[k] < of.C;
      t.label[k] = known ? static_cast<int>(y[k]) : -1;
      S w = t.weight;
      if (of.class_weight && known) w *= static_cast<const S*>(of.class_weight)[y[k]];
      t.amount[k] = w == 0 || t.amount[k] == 0 ? S(0) : known ? t.amount[k] * w : static_cast<S>(NAN);
    }
    if (t.label[0] == t.label[1]) t.amount[0] += t.amount[1], t.amount[1] = 0;
    if (t.amount[0] == 0) t.amount[0] = t.amount[1], t.label[0] = t.label[1], t.amount[1] = 0;
    if (t.amount[1] == 0) t.label[1] = t.label[0];
    return t;
  }

  // One class, as a part of a row.
  static __device__ __forceinline__ Part<S> part_of_one(S z) {
    const S x = z - finite_or_zero(z);
    return {z, fast_exp(x), x, 1};
  }

  // dL/dz_j = a exp(z_j - shift) + b, but for the labels.
  struct Pull {
    S value, example_weight, shift, a, b, g[2];
  };
  __device__ __forceinline__ Pull pull(const TwoLabels<S>& t, const Part<S>& neither, const S (&z)[2]) const {
    const bool two = t.label[0] != t.label[1];
    Pull p{0, 0, finite_or_zero(neither.max), 0, 0, {0, 0}};
#pragma unroll 1
    for (int k = 0; k < 2 && (k == 0 || two); ++k) {  // so that the formulas are compiled once
      const S z_k = k == 0 ? z[0] : z[1], z_other = k == 0 ? z[1] : z[0];
      const S amount = k == 0 ? t.amount[0] : t.amount[1];
      const Part<S> others = two ? merge(neither, part_of_one(z_other)) : neither;
      const Statistics<S> found = others.statistics(z_k);
      const Outcome<D> o = evaluate<D>(combination, found, static_cast<S>(of.C));
      p.value += amount * o.value;
      p.example_weight += amount * o.example_weight;
      // relative to the largest of all others, but for the classes without mass: there its inverse may be infinite
      const S a = amount * o.a, b = amount * o.b, g = amount * o.g_y;
      p.a += a * (neither.sum_exp == 0 ? S(0) : fast_exp(p.shift - found.shift));
      p.b += b;
      const S on_other = two ? a * fast_exp(z_other - found.shift) + b : S(0);
      p.g[0] += k == 0 ? g : on_other;
      p.g[1] += k == 0 ? on_other : g;
    }
    return p;
  }

  template <int kLanes>
  __device__ __forceinline__ Totals row(int64_t i) const {
    const int C = static_cast<int>(of.C), lane = threadIdx.x % kLanes;
    const T* z = static_cast<const T*>(of.logits) + i * of.C;
    T* grad = of.grad ? static_cast<T*>(of.grad) + i * of.C : nullptr;
    const TwoLabels<S> t = labels_of(i);
    const int first = t.label[0], second = t.label[1];
    const bool live = t.amount[0] != 0;  // NaN is
    Pull p{0, 0, 0, 0, 0, {0, 0}};
    if (live) {
      const auto is_label = [&](int k) { return lane + k * kLanes == first || lane + k * kLanes == second; };
      const int count = (C - lane + kLanes - 1) / kLanes;  // of this lane
      const Part<S> neither =
          merge_lanes<kLanes>(part_of<Part<S>>(z + lane, kLanes, count, is_label, combination.needs_all_logits));
      p = pull(t, neither, {first < 0 ? S(0) : S(widen(z[first])), second < 0 ? S(0) : S(widen(z[second]))});
    }
    const S factor = grad ? upstream<S>(of, i) : S(0);
    for (int j = lane; grad && j < C; j += kLanes) {
      const S g = j == first ? p.g[0] : j == second ? p.g[1] : p.a * fast_exp(S(widen(z[j])) - p.shift) + p.b;
      narrow(live ? g * factor : S(0), grad[j]);
    }
    if (of.value && lane == 0) static_cast<S*>(of.value)[i] = p.value;
    return {double(p.value), double(p.example_weight), double(t.weight)};
  }
};

}  // namespace imae
