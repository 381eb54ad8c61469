// Every loss formula, once, for every backend.
//
// Whatever a loss does to a row of logits z with label y is three steps:
//   statistics  a sweep over the row's other classes, j != y, for their sums (Statistics);
//   formula     no classes any more: the row's value, and the coefficients of its gradient (this file);
//   gradient    a sweep that writes dL/dz_j = a exp(z_j - shift) + b, and dL/dz_y = g_y (Coefficients).
// That the gradient has this form, one multiple of the softmax plus a constant, is what makes one sweep enough. It is
// also the limit of the design: a loss whose gradient has another form does not fit.
//
// What formulas are written in, over the other classes:
//   lse_o = logsumexp_j z_j      u = z_y - lse_o, the margin      p = sigmoid(u) = p_y      r = sigmoid(-u) = 1 - p_y
//   q_j   = exp(z_j - lse_o), the softmax over the others.
// Most formulas are functions L(u) of the margin, with slope s = -dL/du:  dL/dz_y = -s,  dL/dz_j = s q_j.
// The others need all logits: they also see d = sum_j -log p_j, over all classes, and return a, b and g_y with
//   dL/dz_j = a q_j + b,  dL/dz_y = g_y.
//
// M is the arithmetic: M::Real is float or double on a device and a vector of rows on a CPU; M::Scalar its element.
#pragma once
#include "arithmetic.h"
#include "steps.h"

namespace imae {

// The numbers are in exported models: none is ever given another meaning or used again, and what a number's parameters
// are never changes. A formula that needs another parameter is another number.
enum class FormulaId : int {
  kCCE = 0,
  kMAE = 1,
  kMSE = 2,
  kGCE = 3,
  kIMAE = 4,
  kDM = 5,
  kRCE = 6,
  kFocal = 7,
  kTaylorCE = 8,
  kAGCE = 9,
  kAUL = 10,
  kAEL = 11,
  kLabelSmoothing = 12,
  kNCE = 13,
};

constexpr int kFormulaCount = 14;

enum Range { kClosed, kAboveLow, kZeroToo, kInteger };  // [low, high]; (low, high]; 0 as well; integers only

// Within its range float32 is as accurate as tests/expected.py demands.
struct Parameter {
  const char* name = nullptr;
  double low = 0, high = 0;
  Range range = kClosed;
};

struct FormulaInfo {
  const char* name;
  bool needs_all_logits;  // or the margin alone
  int parameter_count = 0;
  Parameter parameters[3] = {};
};

// The table that Python reads, by the numbers of FormulaId. The ranges are those of imae_ext/formulas.py.
inline constexpr FormulaInfo kFormulas[kFormulaCount] = {
    {"CCE", false},
    {"MAE", false},
    {"MSE", false},
    {"GCE", false, 1, {{"q", 0, 16, kAboveLow}}},
    {"IMAE", false, 2, {{"T", 0, 30}, {"eps", 1e-30, 1, kZeroToo}}},
    {"DM", false, 3, {{"beta", 0, 16}, {"lambd", 0.01, 16, kZeroToo}, {"eps", 1e-30, 1, kZeroToo}}},
    {"RCE", false, 1, {{"A", 0, 1e4, kAboveLow}}},
    {"Focal", false, 1, {{"gamma", 0, 64}}},
    {"TaylorCE", false, 1, {{"t", 1, 64, kInteger}}},
    {"AGCE", false, 2, {{"a", 1e-6, 100}, {"q", 0, 4, kAboveLow}}},
    {"AUL", false, 2, {{"a", 1, 100, kAboveLow}, {"q", 0, 4, kAboveLow}}},
    {"AEL", false, 1, {{"a", 0.05, 1e4}}},
    {"LabelSmoothing", true, 1, {{"eps", 0, 1}}},
    {"NCE", true},
};

// B(u) = integral over t from u to infinity of expm1(beta p^lambd r): the bounded part of IMAE's and DM's value.
// Both halves are series, fitted by prepare.cpp, of a mean of the positive integrand; the upper one of that less its
// limit for r = 0, which is all that counts for a good fit:
//   p >= 1/2:  B = r * (beta + r * upper(4 r - 1))
//   p <  1/2:  B = half + z * lower(scale * log1p(z) - 1),  z = -log(2 p), continued in a straight line after z_max.
// The upper one is of powers: half of the operations of a Chebyshev series, and as exact, for nothing cancels in it.
// The lower one, of up to 128 terms, is of Chebyshev polynomials.
// For lambd = 1 the integrand is even in u, so that B(u) = 2 half - B(-u) and no lower series is needed.
template <class S>
struct Expansion {
  int upper = 0, upper_count = 0, lower = 0, lower_count = 0;  // where in the pool, and how many
  S half = 0, z_max = 0, scale = 0, tail = 0;
};

template <class S>
struct Term {
  FormulaId formula = FormulaId::kCCE;
  S coefficient = 0;
  S parameter[3] = {};
  S d = 0;         // IMAE and DM: eps / 2
  S constant = 0;  // AGCE: (a + 1)^q. AUL: a - 1
  Expansion<S> bounded;
};

// ---- formulas of the margin ----
// What they return is their value and their slope, -dL/du.

template <class M>
IMAE_HD OfMargin<M> cce(const Row<M>& x) {
  return {x.nlp, x.r};
}

// Ghosh et al. 2017
template <class M>
IMAE_HD OfMargin<M> mae(const Row<M>& x) {
  return {x.r + x.r, (x.p + x.p) * x.r};
}

template <class M>
IMAE_HD OfMargin<M> mse(const Row<M>& x) {
  const auto r2 = x.r * x.r;
  return {r2, (x.p + x.p) * r2};
}

// Zhang & Sabuncu 2018, Eq. 6, and beyond their q = 1 the -p^q of language models (arXiv 2510.00526)
template <class M>
IMAE_HD OfMargin<M> gce(const Row<M>& x, typename M::Scalar q) {
  return {saturating<M>(x.nlp, q), power<M>(x.nlp, q) * x.r};
}

template <class M>
IMAE_HD typename M::Real bounded_part(const Row<M>& x, const Expansion<typename M::Scalar>& e,
                                      const typename M::Scalar* pool, typename M::Scalar beta) {
  using S = typename M::Scalar;
  const auto small = M::min(x.p, x.r);
  const auto upper = small * (beta + small * polynomial<M>(pool + e.upper, e.upper_count, S(4) * small - S(1)));
  auto lower = S(2) * e.half - upper;
  if (e.lower_count > 0) {
    const auto z = x.nlp - S(0.69314718055994530942), inside = M::min(M::max(z, M::set(0)), M::set(e.z_max));
    lower = e.half + inside * chebyshev<M>(pool + e.lower, e.lower_count, M::log1p(inside) * e.scale - S(1));
    if (e.tail > 0) lower = lower + e.tail * (z - inside);
  }
  return M::select(x.p >= M::set(S(0.5)), upper, lower);
}

// log((r + d) / (p d)), by one logarithm: of 1 + exp(-u) (1 + 1/d). Where M knows -log p already, as of classes that
// are no top class (csrc/dense.h), it is part of the sum.
template <class M>
IMAE_HD typename M::Real fading(const Row<M>& x, typename M::Scalar d) {
  using S = typename M::Scalar;
  const S inverse = S(1) / d;
  if constexpr (requires { M::kKnowsLogP; }) return M::log1p(x.r * inverse) + x.nlp;
  const auto beyond = M::select(x.u >= M::set(0), x.odds * (S(1) + inverse), x.odds + inverse);
  return M::max(-x.u, M::set(0)) + M::log1p(beyond);
}

// arXiv 1905.11233, Eq. 12, with weight exp(beta p^lambd r) - d/(r + d): the pull of a fitted example fades once
// r is far below eps. lambd = 1 is IMAE (arXiv 1903.12141, Table 2). d = 0 is the paper to the letter. The integral of
// r/(r + d) over the margin is log((r + d) / (p d)) / (1 + d).
template <class M>
IMAE_HD OfMargin<M> dm(const Row<M>& x, const Term<typename M::Scalar>& t, const typename M::Scalar* pool,
                       typename M::Scalar lambd) {
  using S = typename M::Scalar;
  const S beta = t.parameter[0];
  const auto exponent = beta * (lambd == 1 ? x.p : power<M>(x.nlp, lambd)) * x.r;
  const auto rise = M::expm1_near(exponent), bounded = bounded_part<M>(x, t.bounded, pool, beta);
  if (t.d == 0) {  // the value's anchor is u = 0; at u = infinity no other class is there to pull against
    const auto slope = M::select(x.u == M::set(M::infinity()), M::set(0), S(0.5) * (rise + S(1)));
    return {S(0.5) * (bounded - t.bounded.half - x.u), slope, rise + S(1)};
  }
  const auto linear = fading<M>(x, t.d) * (S(1) / (S(1) + t.d));
  return {S(0.5) * (linear + bounded), S(0.5) * (rise + x.r / (x.r + t.d)), rise + S(1)};
}

// the reversed half of symmetric cross entropy (Wang et al. 2019), A = -log of the clipped zero
template <class M>
IMAE_HD OfMargin<M> rce(const Row<M>& x, typename M::Scalar A) {
  return {A * x.r, A * x.p * x.r};
}

// Lin et al. 2017, Eq. 4
template <class M>
IMAE_HD OfMargin<M> focal(const Row<M>& x, typename M::Scalar gamma) {
  const auto f = power<M>(x.nlr, gamma);
  return {product<M>(f, x.nlp), f * (x.r + gamma * product<M>(x.p, x.nlp))};
}

// Feng et al. 2020: the first t terms of -log p = sum_k r^k / k
template <class M>
IMAE_HD OfMargin<M> taylor_ce(const Row<M>& x, typename M::Scalar t) {
  auto value = M::set(0), rk = M::set(1);
  for (int k = 1; k <= static_cast<int>(t); ++k) {
    rk = rk * x.r;
    value = value + rk / static_cast<typename M::Scalar>(k);
  }
  return {value, x.r * -M::expm1(-t * x.nlr)};
}

// AGCE and AUL, Zhou et al. 2021, Eqs. 10 and 11. A difference of powers is the larger one times 1 - exp(-q l), where l
// is the logarithm of their bases' quotient: no cancellation.
template <class M>
IMAE_HD OfMargin<M> asymmetric(const Row<M>& x, const Term<typename M::Scalar>& t, typename M::Scalar q) {
  const bool agce = t.formula == FormulaId::kAGCE;
  const auto base = agce ? t.parameter[0] + x.p : t.constant + x.r, power = M::exp((q - 1) * M::log(base));
  const auto share = saturating<M>(M::log1p(x.r / (agce ? base : M::set(t.constant))), q);
  return {(agce ? M::set(t.constant) : power * base) * share, x.p * x.r * power};
}

// asymmetric exponential loss, Eq. 12
template <class M>
IMAE_HD OfMargin<M> ael(const Row<M>& x, typename M::Scalar a) {
  const auto e = M::exp(-x.p / a);
  return {e, x.p * x.r / a * e};
}

// ---- formulas that need all logits ----
// What they return is their value and the coefficients a, b and g_y.

// (1 - eps) CCE + eps times the mean over all classes of -log p_j (Szegedy et al. 2016)
template <class M>
IMAE_HD Outcome<M> label_smoothing(const Row<M>& x, typename M::Scalar eps) {
  using S = typename M::Scalar;
  const auto smooth = eps == 0 ? M::set(0) : eps * (x.nlp + x.rest) / x.C;  // eps / C may be 0, times infinity
  const auto sharp = eps == 1 ? M::set(0) : (S(1) - eps) * x.nlp;
  const auto past = M::select(x.p < x.r, x.p - (S(1) - eps), eps - x.r);  // p - (1 - eps), from the smaller
  return {sharp + smooth, x.r, M::set(-eps / x.C), past - eps / x.C, M::set(0), x.p};
}

// normalised cross entropy n/d, Ma et al. 2020, Eq. 6: a q_j + b = (r q_j rest + n (1 - (C - 1) r q_j)) / d^2
template <class M>
IMAE_HD Outcome<M> nce(const Row<M>& x) {
  using S = typename M::Scalar;
  const auto n = x.nlp, d = n + x.rest, inverse = S(1) / d, zero = M::set(0);
  const auto n_d = n * inverse, rest_d = x.rest * inverse;  // 1 / d^2 alone would underflow for masked classes
  Outcome<M> o{n_d,           x.r * (rest_d - (x.C - S(1)) * n_d) * inverse,
               n_d * inverse, -(x.r * rest_d + (x.C - S(1)) * x.p * n_d) * inverse,
               zero,          x.p};
  if (x.C == S(2)) {  // q = 1: all in a, where 1 - r = p does not cancel
    o.a = -o.g_y;
    o.b = zero;
  }
  // the limits: C = 1 has n = d = 0, an infinite logit has d = infinity
  const auto limit = (d == zero) | M::isinf(d);
  o.value = M::select(limit, M::select((d == zero) | M::isinf(n), M::set(1), zero), o.value);
  o.a = M::select(limit, zero, o.a);
  o.b = M::select(limit, zero, o.b);
  o.g_y = M::select(limit, zero, o.g_y);
  return o;
}

// ---- all of them ----
// By their number, with the same outcome whatever they need.

template <class M>
IMAE_HD Outcome<M> outcome(const OfMargin<M>& o) {
  return {o.value, o.slope, M::set(0), -o.slope, o.example_weight, M::set(0)};
}

// kAllLogits: whether there may be formulas that need all logits; a compiler prepares a part of those for every row.
template <class M, bool kAllLogits>
IMAE_HD Outcome<M> formula(const Row<M>& x, const Term<typename M::Scalar>& t, const typename M::Scalar* pool) {
  const auto* q = t.parameter;
  switch (t.formula) {  // no default: a compiler then says which formula is missing
    case FormulaId::kCCE: return outcome<M>(cce<M>(x));
    case FormulaId::kMAE: return outcome<M>(mae<M>(x));
    case FormulaId::kMSE: return outcome<M>(mse<M>(x));
    case FormulaId::kGCE: return outcome<M>(gce<M>(x, q[0]));
    case FormulaId::kIMAE: return outcome<M>(dm<M>(x, t, pool, 1));
    case FormulaId::kDM: return outcome<M>(dm<M>(x, t, pool, q[1]));
    case FormulaId::kRCE: return outcome<M>(rce<M>(x, q[0]));
    case FormulaId::kFocal: return outcome<M>(focal<M>(x, q[0]));
    case FormulaId::kTaylorCE: return outcome<M>(taylor_ce<M>(x, q[0]));
    case FormulaId::kAGCE:
    case FormulaId::kAUL: return outcome<M>(asymmetric<M>(x, t, q[1]));
    case FormulaId::kAEL: return outcome<M>(ael<M>(x, q[0]));
    case FormulaId::kLabelSmoothing:
      if constexpr (kAllLogits) return label_smoothing<M>(x, q[0]);
      break;
    case FormulaId::kNCE:
      if constexpr (kAllLogits) return nce<M>(x);
      break;
  }
  const auto nan = M::set(0) * M::set(M::infinity());  // never: prepare.cpp knows which formulas need all logits
  return {nan, nan, nan, nan, nan, nan};
}

}  // namespace imae
