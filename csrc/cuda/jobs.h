// What the kernels do with a row, whichever way they walk over it: Forward evaluates the loss from the row's sums,
// Backward takes what Forward saved. Either way the row's gradient is a exp(z_j - max) + b, and g_y at the label.
#pragma once
#include "reduce.h"

namespace imae {

template <class S>
struct alignas(16) Coefficients {
  S max, a, b, g_y;
};

struct Label {
  int y;         // -1: not a class
  bool ignored;  // or of a class of weight 0
};

template <class S>
__device__ __forceinline__ Label as_label(const Rows& rows, int64_t y) {
  return {y >= 0 && y < rows.C ? static_cast<int>(y) : -1, rows.template left_out<S>(y)};
}
template <class S>
__device__ __forceinline__ Label label_of(const Rows& rows, int64_t i) {
  return as_label<S>(rows, rows.label(i));
}

// What a row counts for in mean's divisor. A label out of range makes its own row NaN, not the others.
template <class S>
__device__ __forceinline__ S target_weight(const Label& t, const void* class_weight) {
  if (t.ignored) return 0;
  return class_weight && t.y >= 0 ? static_cast<const S*>(class_weight)[t.y] : S(1);
}

// The blocks that count the targets, of kCountRows at a time. Not by the card: the sum's order is the same on all.
constexpr int kCountRows = 2048;
IMAE_HD int count_blocks(int64_t N) {
  return static_cast<int>(N < kMaxCountBlocks * kCountRows ? N / kCountRows + 1 : kMaxCountBlocks);
}

template <class T_>
struct ForwardJob {
  using T = T_;
  using S = ScalarOf<T>;
  static constexpr bool kForward = true;
  Forward rows;
  Reduction reduction;
  Loss<S> loss;

  // of the gradient; every thread of the block calls it, once
  __device__ __forceinline__ S scale() const {
    if (!reduction.mean_gradient) return S(1);
    double targets = 0;
    if (gridDim.x > 1) {
      // counted by an earlier launch, in parts; added in each warp anew, which is cheaper than a barrier
      const int parts = count_blocks(rows.N), lane = threadIdx.x % 32;
#pragma unroll
      for (int b = 0; b < kMaxCountBlocks; b += 32)
        targets += lane + b < parts ? reduction.workspace->counts[lane + b] : 0;
      targets = group_sum<32>(targets);
    } else {
      for (int64_t i = threadIdx.x; i < rows.N; i += blockDim.x)
        targets += target_weight<S>(label_of<S>(rows, i), rows.class_weight);
      targets = block_sum({0, 0, targets}).targets;
    }
    return static_cast<S>(1 / targets);
  }

  // Every lane of the row calls it; the leader writes and counts.
  __device__ __forceinline__ Coefficients<S> evaluate(int64_t i, const Label& t, const Sums<S>& sums, S z_y, S scale,
                                                      bool leader, Totals& totals) const {
    const S max = finite_or_zero(sums.max);
    Outcome<Device<S>> o = imae::evaluate<Device<S>>(loss, {max, sums.sum_exp, sums.sum}, z_y, static_cast<S>(rows.C));
    S w = rows.class_weight && t.y >= 0 ? static_cast<const S*>(rows.class_weight)[t.y] : S(1);
    if (t.y < 0) w = o.p = o.weight = static_cast<S>(NAN);
    const Coefficients<S> c{max, o.a * w, o.b * w, o.g_y * w};
    if (leader) {
      put(rows.value, i, o.value * w);
      put(rows.p, i, o.p);
      put(rows.weight, i, o.weight);
      save(i, c);
      totals = totals + Totals{double(o.value * w), double(o.weight) * w, t.y < 0 ? 1.0 : double(w)};
    }
    return {max, c.a * scale, c.b * scale, c.g_y * scale};
  }

  static __device__ __forceinline__ S after(int64_t) { return S(1); }

  __device__ __forceinline__ void ignore(int64_t i) const {
    put(rows.value, i, 0);
    put(rows.p, i, 0);
    put(rows.weight, i, 0);
    save(i, {0, 0, 0, 0});
  }

  // every thread of the block calls it, at the end
  __device__ __forceinline__ void finish(Totals t) const {
    if (reduction.loss && !grid_sum(t, reduction.workspace->part, &reduction.workspace->ticket)) return;
    if (threadIdx.x != 0 || (!reduction.loss && blockIdx.x != 0)) return;
    const double divisor = reduction.divide_by == Reduction::kTargets   ? t.targets
                           : reduction.divide_by == Reduction::kWeights ? t.weight
                                                                        : 1.0;
    put(reduction.loss, 0, static_cast<S>(t.value / divisor));
    put(reduction.divisor, 0, static_cast<S>(divisor));
  }

 private:
  __device__ __forceinline__ void put(void* to, int64_t i, S x) const {
    if (to) static_cast<S*>(to)[i] = x;
  }
  __device__ __forceinline__ void save(int64_t i, const Coefficients<S>& c) const {
    if (rows.coefficients) static_cast<Coefficients<S>*>(rows.coefficients)[i] = c;
  }
};

template <class T_>
struct BackwardJob {
  using T = T_;
  using S = ScalarOf<T>;
  static constexpr bool kForward = false;
  Backward rows;

  __device__ __forceinline__ S scale() const { return 1 / *static_cast<const S*>(rows.divisor); }
  __device__ __forceinline__ Coefficients<S> saved(int64_t i, S scale) const {
    const S by = finite(upstream(i)) ? upstream(i) * scale : scale;
    const auto c = static_cast<const Coefficients<S>*>(rows.coefficients)[i];
    return {c.max, c.a * by, c.b * by, c.g_y * by};
  }
  // What the gradient itself is multiplied by: an upstream gradient of inf or NaN, which a coefficient of 0 would turn
  // into NaN even where the gradient is not 0.
  __device__ __forceinline__ S after(int64_t i) const { return finite(upstream(i)) ? S(1) : upstream(i); }
  __device__ __forceinline__ void finish(Totals) const {}

 private:
  static __device__ __forceinline__ bool finite(S x) { return x - x == 0; }
  __device__ __forceinline__ S upstream(int64_t i) const {
    return static_cast<const S*>(rows.grad_output)[rows.grad_output_is_scalar ? 0 : i];
  }
};

template <class S>
__device__ __forceinline__ S gradient(const Coefficients<S>& c, S z) {
  return c.a * fast_exp(z - c.max) + c.b;
}

}  // namespace imae
