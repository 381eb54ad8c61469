// Step 2 as the kernels call it: a linear combination of formulas (formulas.h), evaluated at a row.
#pragma once
#include "formulas.h"

namespace imae {

constexpr int kMaxTerms = 4;    // of a combination
constexpr int kMaxUpper = 40;   // coefficients of a series: enough for 1e-12,
constexpr int kMaxLower = 128;  // over all of the parameters' ranges
// Of all terms together. One DM takes up to 165, so that any two fit; three that do not are refused. The pool is passed
// at every launch on a GPU, where the classic limit of all parameters is 4096 bytes.
constexpr int kSeriesPool = 336;

// A linear combination of formulas, prepared by prepare.cpp.
template <class S>
struct Combination {
  int term_count = 0;
  bool needs_all_logits = false;
  Term<S> term[kMaxTerms];
  S pool[kSeriesPool] = {};
};

// All terms at a row, of which everything is known that formulas see.
template <class M, bool kAllLogits = true>
IMAE_HD Outcome<M> combine(const Combination<typename M::Scalar>& combination, const Row<M>& x) {
  const auto zero = M::set(0);
  Outcome<M> total{zero, zero, zero, zero, zero, x.p};
  for (int i = 0; i < combination.term_count; ++i) {
    const auto& t = combination.term[i];
    const Outcome<M> o = formula<M, kAllLogits>(x, t, combination.pool);
    total.value = total.value + t.coefficient * o.value;
    total.a = total.a + t.coefficient * o.a;
    total.b = total.b + t.coefficient * o.b;
    total.g_y = total.g_y + t.coefficient * o.g_y;
    total.example_weight = total.example_weight + t.coefficient * o.example_weight;
  }
  return total;
}

// The formula step: the row's value, and its gradient's coefficients a, b and g_y.
template <class M, bool kAllLogits = true>
IMAE_HD Outcome<M> evaluate(const Combination<typename M::Scalar>& combination, const Statistics<typename M::Real>& row,
                            typename M::Scalar C) {
  using S = typename M::Scalar;
  const auto zero = M::set(0), infinity = M::set(M::infinity());
  const auto none = row.sum_exp == zero;  // C = 1, or all others at -infinity
  const auto log_sum = M::log(row.sum_exp);
  const auto u = margin<M>(row, log_sum);
  Row<M> x = row_of_margin<M>(u);
  x.C = C;
  if (combination.needs_all_logits) {
    x.rest = (C - S(1)) * (x.nlr + log_sum) - row.sum;
    x.rest = M::select(none, C == S(1) ? zero : infinity, x.rest);
  }
  Outcome<M> total = combine<M, kAllLogits>(combination, x);
  total.a = M::select(none, zero, total.a / row.sum_exp);
  // NaN anywhere in the row, or an infinity that softmax cannot place: the whole row is NaN
  const auto known = u == u;
  total.value = M::select(known, total.value, u);
  total.a = M::select(known, total.a, u);
  total.b = M::select(known, total.b, u);
  total.g_y = M::select(known, total.g_y, u);
  return total;
}

}  // namespace imae
