// What the three steps of a loss hand to one another, of a row. M is the arithmetic (arithmetic.h).
#pragma once
#include "arithmetic.h"

namespace imae {

// What a sweep adds up of the other classes beside exp(z_j - shift): a set.
enum Sum : int {
  kPlain = 1,     // z_j - shift, for formulas that need all logits
  kWeighted = 2,  // exp(z_j - shift) (z_j - shift), for the entropy
  kSquares = 4,   // exp(z_j - shift)^2
  kFromMax = 8,   // no sum: the shift is the others' maximum, or 0 where they have no mass; the last two need that
};

// Step 1: what a sweep over a row found. `shift` is what was subtracted from the logits before their exponentials: the
// others' maximum, or another logit of about that size. It is finite, or else NaN.
template <class R>
struct Statistics {
  R shift;
  R sum_exp;  // of exp(z_j - shift) over the others
  R sum;      // the sum kPlain, where it was wanted
  R z_y;
  R weighted, squares;  // likewise
  Statistics() = default;
  IMAE_HD Statistics(R shift, R sum_exp, R sum, R z_y)
      : shift(shift), sum_exp(sum_exp), sum(sum), z_y(z_y), weighted{}, squares{} {}
};

// Step 3: dL/dz_j = a exp(z_j - shift) + b, dL/dz_y = g_y.
template <class R>
struct Coefficients {
  R shift, a, b, g_y;
};
constexpr int kCoefficients = 4;  // numbers that are saved of a row

template <class M>
struct Row {
  using R = typename M::Real;
  R u, p, r;
  R odds;      // exp(-|u|)
  R nlp, nlr;  // -log p = softplus(-u), -log r = softplus(u)
  R rest;      // sum over the others of -log p_j; only where a formula needs all logits
  typename M::Scalar C;
};

// What a formula of the margin gives.
template <class M>
struct OfMargin {
  using R = typename M::Real;
  R value, slope, example_weight;
  IMAE_HD OfMargin(R value, R slope) : value(value), slope(slope), example_weight(slope + slope) {}
  IMAE_HD OfMargin(R value, R slope, R weight) : value(value), slope(slope), example_weight(weight) {}
};

// Step 2: what any formula gives. a is that of q_j, until evaluate() makes it that of exp(z_j - shift).
template <class M>
struct Outcome {
  typename M::Real value, a, b, g_y, example_weight;
  typename M::Real p;  // p_y, set by evaluate
};

// From what a sweep found, and log(sum_exp).
template <class M>
IMAE_HD typename M::Real margin(const Statistics<typename M::Real>& row, typename M::Real log_sum) {
  const auto u = (row.z_y - row.shift) - log_sum;
  return M::select(row.z_y == M::set(M::infinity()), row.z_y - row.z_y, u);  // NaN, as softmax has it
}

template <class M>
IMAE_HD Row<M> row_of_margin(typename M::Real u) {
  using S = typename M::Scalar;
  const auto e = M::exp_nonpositive(-M::abs(u)), big = S(1) / (S(1) + e), small = e * big, l = M::log1p(e);
  Row<M> x;
  x.u = u;
  x.odds = e;
  x.p = M::select(u >= M::set(0), big, small);
  x.r = M::select(u >= M::set(0), small, big);
  x.nlp = M::max(-u, M::set(0)) + l;
  x.nlr = M::max(u, M::set(0)) + l;
  return x;
}

}  // namespace imae
