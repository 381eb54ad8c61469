// What the kernels do with a row, whichever way they walk over it: Forward evaluates the formula from the row's
// statistics, Backward takes the coefficients that Forward saved. Either way the gradient is written from coefficients.
// Describe (describe.cuh) evaluates more of the statistics, and ends with that.
#pragma once
#include "reduce.h"

namespace imae {

// Threads on an SM that a kernel's registers must allow; a guess. Left to itself, the compiler spills to allow more.
template <class S>
constexpr int kResidentThreads = sizeof(S) == 8 ? 512 : 768;

// Coefficients in memory, read and written 16 bytes at a time.
template <class S>
struct alignas(16) Saved : Coefficients<S> {};

// A row's label, and what the row's value and gradient are multiplied by.
template <class S>
struct Label {
  int y;         // -1: not a class
  bool ignored;  // the row does not count: it has the ignored label, or weighs nothing
  S weight;
};

// A label out of range makes its own row NaN, not the others: it has no weight of its class.
template <class S>
__device__ __forceinline__ Label<S> as_label(const Rows& rows, int64_t i, int64_t y) {
  const int known = y >= 0 && y < rows.C ? static_cast<int>(y) : -1;
  if (y == rows.ignore_index) return {known, true, S(0)};
  S weight = rows.class_weight && known >= 0 ? static_cast<const S*>(rows.class_weight)[known] : S(1);
  if (rows.sample_weight) weight *= static_cast<const S*>(rows.sample_weight)[i];
  return {known, weight == 0, weight};
}
template <class S>
__device__ __forceinline__ Label<S> label_of(const Rows& rows, int64_t i) {
  return as_label<S>(rows, i, rows.label(i));
}

// The loss and its divisor, where they are wanted, from the sums over all rows.
template <class S>
__device__ __forceinline__ void put_reduction(const Reduction& r, const Totals& t) {
  const double divisor = r.divide_by == Reduction::kTargets          ? t.targets
                         : r.divide_by == Reduction::kExampleWeights ? t.example_weight
                                                                     : 1.0;
  if (r.loss) *static_cast<S*>(r.loss) = static_cast<S>(t.value / divisor);
  if (r.divisor) *static_cast<S*>(r.divisor) = static_cast<S>(divisor);
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
  using Part = imae::Part<S>;
  static constexpr bool kForward = true, kGradient = true;
  Forward rows;
  Reduction reduction;
  Workspace* workspace;
  Combination<S> combination;

  __device__ __forceinline__ bool wants_more() const { return combination.needs_all_logits; }

  // What the gradient is multiplied by. It waits at a barrier: every thread of the block calls it, once.
  __device__ __forceinline__ S agree_on_scale() const {
    if (!reduction.mean_gradient) return S(1);
    double targets = 0;
    if (gridDim.x > 1) {
      // counted by an earlier launch, in parts; added in each warp anew, which is cheaper than a barrier
      const int parts = count_blocks(rows.N), lane = threadIdx.x % 32;
#pragma unroll
      for (int b = 0; b < kMaxCountBlocks; b += 32) targets += lane + b < parts ? workspace->counts[lane + b] : 0;
      targets = group_sum<32>(targets);
    } else {
      for (int64_t i = threadIdx.x; i < rows.N; i += blockDim.x) targets += label_of<S>(rows, i).weight;
      targets = block_sum({0, 0, targets}).targets;
    }
    return static_cast<S>(1 / targets);
  }

  // Every lane of the row calls it; the leader writes and counts.
  __device__ __forceinline__ Coefficients<S> evaluate(int64_t i, const Label<S>& t, const Statistics<S>& found, S scale,
                                                      bool leader, Totals& totals) const {
    Outcome<Device<S>> o = imae::evaluate<Device<S>>(combination, found, static_cast<S>(rows.C));
    S w = t.weight;
    if (t.y < 0) w = o.p = o.example_weight = static_cast<S>(NAN);
    const Coefficients<S> c{found.shift, o.a * w, o.b * w, o.g_y * w};
    if (leader) {
      put(rows.value, i, o.value * w);
      put(rows.p, i, o.p);
      put(rows.example_weight, i, o.example_weight);
      // an infinite shift marks a row that does not count; that of a live row comes with NaN
      save(i, {Device<S>::isinf(c.shift) ? static_cast<S>(NAN) : c.shift, c.a, c.b, c.g_y});
      totals = totals + Totals{double(o.value * w), double(o.example_weight) * w, double(t.weight)};
    }
    return {c.shift, c.a * scale, c.b * scale, c.g_y * scale};
  }

  static __device__ __forceinline__ S after(int64_t) { return S(1); }

  __device__ __forceinline__ void ignore(int64_t i) const {
    put(rows.value, i, 0);
    put(rows.p, i, 0);
    put(rows.example_weight, i, 0);
    save(i, {Device<S>::infinity(), 0, 0, 0});
  }

  // every thread of the block calls it, at the end
  __device__ __forceinline__ void finish(Totals t) const {
    if (reduction.loss && !grid_sum(t, workspace->part, &workspace->ticket)) return;
    if (threadIdx.x != 0 || (!reduction.loss && blockIdx.x != 0)) return;
    put_reduction<S>(reduction, t);
  }

 private:
  __device__ __forceinline__ void put(void* to, int64_t i, S x) const {
    if (to) static_cast<S*>(to)[i] = x;
  }
  __device__ __forceinline__ void save(int64_t i, const Coefficients<S>& c) const {
    if (rows.coefficients) static_cast<Saved<S>*>(rows.coefficients)[i] = Saved<S>{c};
  }
};

template <class T_>
struct BackwardJob {
  using T = T_;
  using S = ScalarOf<T>;
  static constexpr bool kForward = false, kGradient = true;
  Backward rows;

  __device__ __forceinline__ S agree_on_scale() const { return 1 / *static_cast<const S*>(rows.divisor); }
  // Marks the row as ignored where it did not count.
  __device__ __forceinline__ Coefficients<S> saved(int64_t i, S scale, Label<S>& t) const {
    const S by = finite(upstream(i)) ? upstream(i) * scale : scale;
    const Coefficients<S> c = static_cast<const Saved<S>*>(rows.coefficients)[i];
    t.ignored |= c.shift == Device<S>::infinity();
    return {c.shift, c.a * by, c.b * by, c.g_y * by};
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
  return c.a * fast_exp(z - c.shift) + c.b;
}

}  // namespace imae
