// Statistics of rows and no gradient: the mathematics of describe.h, made of what the tiers' sweeps add up. A row is
// read once, and a few numbers are written for it.
#pragma once
#include "../describe.h"

#include "jobs.h"

namespace imae {

// A part of the other classes, as Part in reduce.h.
template <class S>
struct DescribedPart {
  S max, sum_exp;
  S weighted, squares;  // of exp(z_j - max) (z_j - max), and of exp(z_j - max)^2; where they are wanted
  static constexpr bool kMasks = true;

  static __device__ __forceinline__ DescribedPart of(S x, bool more) {
    const S e = fast_exp(x), lowest = -Device<S>::largest();  // 0 times -infinity would be NaN
    return {x, e, more ? e * larger(lowest, x) : S(0), more ? e * e : S(0)};
  }
  __device__ __forceinline__ void add(const DescribedPart& few, bool more) {
    sum_exp += few.sum_exp;
    if (more) weighted += few.weighted, squares += few.squares;
  }
  template <int kLanes>
  __device__ __forceinline__ void add_lanes(bool more) {
    sum_exp = group_sum<kLanes>(sum_exp);
    if (more) weighted = group_sum<kLanes>(weighted), squares = group_sum<kLanes>(squares);
  }
  // What it is relative to a maximum that is larger by `less`. An empty or vanished part stays 0: its factor may be
  // infinite.
  __device__ __forceinline__ DescribedPart relative_to(S maximum, S less) const {
    if (sum_exp == 0) return {maximum, 0, 0, 0};
    const S by = fast_exp(-less);
    return {maximum, by * sum_exp, by * (weighted - less * sum_exp), by * (by * squares)};
  }
  __device__ __forceinline__ Statistics<S> statistics(S z_y) const {
    Statistics<S> all(finite_or_zero(max), sum_exp, S(0), z_y);
    all.weighted = weighted, all.squares = squares;
    return all;
  }
};

template <class S>
__device__ __forceinline__ DescribedPart<S> merge(const DescribedPart<S>& x, const DescribedPart<S>& y) {
  const S max = larger(x.max, y.max), m = finite_or_zero(max);
  DescribedPart<S> all = x.relative_to(max, m - finite_or_zero(x.max));
  all.add(y.relative_to(max, m - finite_or_zero(y.max)), true);
  return all;
}

template <class T_>
struct DescribeJob {
  using T = T_;
  using S = ScalarOf<T>;
  using Part = DescribedPart<S>;
  static constexpr bool kForward = true, kGradient = false;
  Describe rows;
  Combination<S> combination;

  __device__ __forceinline__ bool wants_more() const { return rows.entropy || rows.sum_p2; }
  static __device__ __forceinline__ S agree_on_scale() { return S(1); }
  static __device__ __forceinline__ S after(int64_t) { return S(1); }
  static __device__ __forceinline__ void finish(const Totals&) {}

  __device__ __forceinline__ Coefficients<S> evaluate(int64_t i, const Label<S>& t, const Statistics<S>& found, S,
                                                      bool leader, const Totals&) const {
    using D = Device<S>;
    if (leader) {
      const Outcome<D> o = imae::evaluate<D, false>(combination, found, static_cast<S>(rows.C));
      const Description<D> d = describe<D, kFromMax | kWeighted | kSquares>(found);
      const bool known = t.y >= 0;
      const S nan = static_cast<S>(NAN);
      if (known)
        write(i, o.p, o.example_weight, d);
      else
        write(i, nan, nan, {nan, nan, nan, S(0)});
    }
    return {0, 0, 0, 0};
  }
  __device__ __forceinline__ void ignore(int64_t i) const { write(i, 0, 0, {0, 0, 0, 0}); }

 private:
  __device__ __forceinline__ void write(int64_t i, S p, S example_weight, const Description<Device<S>>& d) const {
    put(rows.p, i, p);
    put(rows.example_weight, i, example_weight);
    put(rows.log_p, i, d.log_p);
    put(rows.entropy, i, d.entropy);
    put(rows.sum_p2, i, d.sum_p2);
    if (rows.is_top) static_cast<bool*>(rows.is_top)[i] = d.is_top != 0;
  }
  static __device__ __forceinline__ void put(void* to, int64_t i, S x) {
    if (to) static_cast<S*>(to)[i] = x;
  }
};

}  // namespace imae
