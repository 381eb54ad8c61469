// Every loss formula, once, for every backend.
//
// For a row of logits z with label y, over the classes j != y ("the others"):
//   lse_o = logsumexp_j z_j      u = z_y - lse_o      p = sigmoid(u) = p_y      r = sigmoid(-u) = 1 - p_y
//   q_j   = exp(z_j - lse_o), the softmax over the others.
// A margin formula is a function L(u) with slope s = -dL/du:  dL/dz_y = -s,  dL/dz_j = s q_j.
// A general formula also sees every logit through d = sum_j -log p_j, over all classes, and returns a, b and g_y with
//   dL/dz_j = a q_j + b,  dL/dz_y = g_y.
//
// M is the arithmetic: M::Real is float or double on a device and a vector of rows on a CPU; M::Scalar its element.
#pragma once

#if defined(__CUDACC__)
#define IMAE_HD __host__ __device__ __forceinline__
#else
#define IMAE_HD inline __attribute__((always_inline))
#endif

namespace imae {

enum Formula : int {
  kCCE,
  kMAE,
  kMSE,
  kGCE,
  kIMAE,
  kDM,
  kRCE,
  kFocal,
  kTaylorCE,
  kAGCE,
  kAUL,
  kAEL,
  kLabelSmoothing,
  kNCE,
  kFormulaCount
};

enum Range { kClosed, kAboveLow, kZeroToo, kInteger };  // [low, high]; (low, high]; 0 as well; integers only

// Within its range float32 is as accurate as tests/expected.py demands.
struct Parameter {
  const char* name = nullptr;
  double low = 0, high = 0;
  Range range = kClosed;
};

struct FormulaInfo {
  const char* name;
  bool margin;  // depends on p_y alone; the others need the sum of all logits
  int parameter_count = 0;
  Parameter parameters[3] = {};
};

// The table that Python reads. The order is that of the enum; the ranges are those of imae_ext/formulas.py.
inline constexpr FormulaInfo kFormulas[kFormulaCount] = {
    {"CCE", true},
    {"MAE", true},
    {"MSE", true},
    {"GCE", true, 1, {{"q", 0, 1, kAboveLow}}},
    {"IMAE", true, 2, {{"T", 0, 30}, {"eps", 1e-30, 1, kZeroToo}}},
    {"DM", true, 3, {{"beta", 0, 16}, {"lambd", 0.01, 16, kZeroToo}, {"eps", 1e-30, 1, kZeroToo}}},
    {"RCE", true, 1, {{"A", 0, 1e4, kAboveLow}}},
    {"Focal", true, 1, {{"gamma", 0, 64}}},
    {"TaylorCE", true, 1, {{"t", 1, 64, kInteger}}},
    {"AGCE", true, 2, {{"a", 1e-6, 100}, {"q", 0, 4, kAboveLow}}},
    {"AUL", true, 2, {{"a", 1, 100, kAboveLow}, {"q", 0, 4, kAboveLow}}},
    {"AEL", true, 1, {{"a", 0.05, 1e4}}},
    {"LabelSmoothing", false, 1, {{"eps", 0, 1}}},
    {"NCE", false},
};

constexpr int kMaxTerms = 4;    // of a combination
constexpr int kMaxUpper = 40;   // Chebyshev coefficients: enough for 1e-12,
constexpr int kMaxLower = 128;  // over all of the parameters' ranges

// B(u) = integral over t from u to infinity of expm1(beta p^lambd r): the bounded part of IMAE's and DM's value.
// Both halves are Chebyshev series, fitted by loss.cpp, of a mean of the positive integrand; the upper one of that less
// its limit for r = 0, which is all that counts for a good fit:
//   p >= 1/2:  B = r * (beta + r * upper(4 r - 1))
//   p <  1/2:  B = half + z * lower(scale * log1p(z) - 1),  z = -log(2 p), continued in a straight line after z_max.
// For lambd = 1 the integrand is even in u, so that B(u) = 2 half - B(-u) and no lower series is needed.
template <class S>
struct Expansion {
  int upper_count = 0, lower_count = 0;
  S half = 0, z_max = 0, scale = 0, tail = 0;
  S upper[kMaxUpper] = {}, lower[kMaxLower] = {};
};

template <class S>
struct Term {
  int formula = 0;
  S coefficient = 0;
  S parameter[3] = {};
  S d = 0;         // IMAE and DM: eps / 2
  S constant = 0;  // AGCE: (a + 1)^q. AUL: a - 1
  Expansion<S> bounded;
};

// A linear combination of formulas, prepared by loss.cpp.
template <class S>
struct Loss {
  int term_count = 0;
  bool margin = true;
  Term<S> term[kMaxTerms];
};

template <class M>
struct Row {
  using R = typename M::Real;
  R u, p, r;
  R nlp, nlr;  // -log p = softplus(-u), -log r = softplus(u)
  R rest;      // sum over the others of -log p_j; general formulas only
  typename M::Scalar C;
};

template <class M>
struct Margin {
  using R = typename M::Real;
  R value, slope, weight;  // weight: the example weight of `normalized` and row_stats
  IMAE_HD Margin(R value, R slope) : value(value), slope(slope), weight(slope + slope) {}
  IMAE_HD Margin(R value, R slope, R weight) : value(value), slope(slope), weight(weight) {}
};

template <class M>
struct Outcome {
  typename M::Real value, a, b, g_y, weight;
  typename M::Real p;  // p_y, set by evaluate
};

// x^q from -log x, with 0^0 = 1
template <class M>
IMAE_HD typename M::Real power(typename M::Real neg_log_x, typename M::Scalar q) {
  return q == 0 ? M::set(1) : M::exp(-q * neg_log_x);
}

// (1 - exp(-q x)) / q of x >= 0, which is x where q x is small
template <class M>
IMAE_HD typename M::Real saturating(typename M::Real x, typename M::Scalar q) {
  using S = typename M::Scalar;
  const auto y = q * x;
  return M::select(y >= M::set(sizeof(S) == 4 ? S(1e-8) : S(1e-16)), -M::expm1(-y) / q, x);
}

// a product that is 0 where x is 0, whatever y is
template <class M>
IMAE_HD typename M::Real product(typename M::Real x, typename M::Real y) {
  return M::select(x == M::set(0), M::set(0), x * y);
}

template <class M>
IMAE_HD typename M::Real chebyshev(const typename M::Scalar* c, int n, typename M::Real x) {
  typename M::Real b1 = M::set(0), b2 = M::set(0), twice = x + x;
  for (int k = n - 1; k > 0; --k) {
    const typename M::Real b = twice * b1 - b2 + c[k];
    b2 = b1;
    b1 = b;
  }
  return x * b1 - b2 + c[0];
}

template <class M>
IMAE_HD Row<M> row_of_margin(typename M::Real u) {
  using S = typename M::Scalar;
  const auto e = M::exp(-M::abs(u)), big = S(1) / (S(1) + e), small = e * big, l = M::log1p(e);
  Row<M> x;
  x.u = u;
  x.p = M::select(u >= M::set(0), big, small);
  x.r = M::select(u >= M::set(0), small, big);
  x.nlp = M::max(-u, M::set(0)) + l;
  x.nlr = M::max(u, M::set(0)) + l;
  return x;
}

// ---- margin formulas ------------------------------------------------------------------------------------------------

template <class M>
IMAE_HD Margin<M> cce(const Row<M>& x) {
  return {x.nlp, x.r};
}

// Ghosh et al. 2017
template <class M>
IMAE_HD Margin<M> mae(const Row<M>& x) {
  return {x.r + x.r, (x.p + x.p) * x.r};
}

template <class M>
IMAE_HD Margin<M> mse(const Row<M>& x) {
  const auto r2 = x.r * x.r;
  return {r2, (x.p + x.p) * r2};
}

// Zhang & Sabuncu 2018, Eq. 6
template <class M>
IMAE_HD Margin<M> gce(const Row<M>& x, typename M::Scalar q) {
  return {saturating<M>(x.nlp, q), power<M>(x.nlp, q) * x.r};
}

template <class M>
IMAE_HD typename M::Real bounded_part(const Row<M>& x, const Expansion<typename M::Scalar>& e,
                                      typename M::Scalar beta) {
  using S = typename M::Scalar;
  const auto small = M::min(x.p, x.r);
  const auto upper = small * (beta + small * chebyshev<M>(e.upper, e.upper_count, S(4) * small - S(1)));
  auto lower = S(2) * e.half - upper;
  if (e.lower_count > 0) {
    const auto z = x.nlp - S(0.69314718055994530942), inside = M::min(M::max(z, M::set(0)), M::set(e.z_max));
    lower = e.half + inside * chebyshev<M>(e.lower, e.lower_count, M::log1p(inside) * e.scale - S(1));
    if (e.tail > 0) lower = lower + e.tail * (z - inside);
  }
  return M::select(x.p >= M::set(S(0.5)), upper, lower);
}

// arXiv 1905.11233, Eq. 12, with weight exp(beta p^lambd r) - d/(r + d): the pull of a fitted example fades once
// r is far below eps. lambd = 1 is IMAE (arXiv 1903.12141, Table 2). d = 0 is the paper to the letter. The integral of
// r/(r + d) over the margin is log((r + d) / (p d)) / (1 + d).
template <class M>
IMAE_HD Margin<M> dm(const Row<M>& x, const Term<typename M::Scalar>& t, typename M::Scalar beta,
                     typename M::Scalar lambd) {
  using S = typename M::Scalar;
  const auto exponent = beta * (lambd == 1 ? x.p : power<M>(x.nlp, lambd)) * x.r;
  const auto rise = M::expm1(exponent), bounded = bounded_part<M>(x, t.bounded, beta);
  if (t.d == 0) {  // the value's anchor is u = 0; at u = infinity no other class is there to pull against
    const auto slope = M::select(x.u == M::set(M::infinity()), M::set(0), S(0.5) * (rise + S(1)));
    return {S(0.5) * (bounded - t.bounded.half - x.u), slope, rise + S(1)};
  }
  const auto linear = (M::log1p(x.r / t.d) + x.nlp) / (S(1) + t.d);
  return {S(0.5) * (linear + bounded), S(0.5) * (rise + x.r / (x.r + t.d)), rise + S(1)};
}

// the reversed half of symmetric cross entropy (Wang et al. 2019), A = -log of the clipped zero
template <class M>
IMAE_HD Margin<M> rce(const Row<M>& x, typename M::Scalar A) {
  return {A * x.r, A * x.p * x.r};
}

// Lin et al. 2017, Eq. 4
template <class M>
IMAE_HD Margin<M> focal(const Row<M>& x, typename M::Scalar gamma) {
  const auto f = power<M>(x.nlr, gamma);
  return {product<M>(f, x.nlp), f * (x.r + gamma * product<M>(x.p, x.nlp))};
}

// Feng et al. 2020: the first t terms of -log p = sum_k r^k / k
template <class M>
IMAE_HD Margin<M> taylor_ce(const Row<M>& x, typename M::Scalar t) {
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
IMAE_HD Margin<M> asymmetric(const Row<M>& x, const Term<typename M::Scalar>& t, typename M::Scalar q) {
  const bool agce = t.formula == kAGCE;
  const auto base = agce ? t.parameter[0] + x.p : t.constant + x.r, power = M::exp((q - 1) * M::log(base));
  const auto share = saturating<M>(M::log1p(x.r / (agce ? base : M::set(t.constant))), q);
  return {(agce ? M::set(t.constant) : power * base) * share, x.p * x.r * power};
}

// asymmetric exponential loss, Eq. 12
template <class M>
IMAE_HD Margin<M> ael(const Row<M>& x, typename M::Scalar a) {
  const auto e = M::exp(-x.p / a);
  return {e, x.p * x.r / a * e};
}

// ---- general formulas -----------------------------------------------------------------------------------------------

// (1 - eps) CCE + eps times the mean over all classes of -log p_j (Szegedy et al. 2016)
template <class M>
IMAE_HD Outcome<M> label_smoothing(const Row<M>& x, typename M::Scalar eps) {
  using S = typename M::Scalar;
  const auto smooth = eps == 0 ? M::set(0) : eps / x.C * (x.nlp + x.rest);
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

// ---- the combination ------------------------------------------------------------------------------------------------

template <class M>
IMAE_HD Margin<M> margin_formula(const Row<M>& x, const Term<typename M::Scalar>& t) {
  const auto* q = t.parameter;
  switch (t.formula) {
    case kMAE: return mae<M>(x);
    case kMSE: return mse<M>(x);
    case kGCE: return gce<M>(x, q[0]);
    case kIMAE: return dm<M>(x, t, q[0], 1);
    case kDM: return dm<M>(x, t, q[0], q[1]);
    case kRCE: return rce<M>(x, q[0]);
    case kFocal: return focal<M>(x, q[0]);
    case kTaylorCE: return taylor_ce<M>(x, q[0]);
    case kAGCE:
    case kAUL: return asymmetric<M>(x, t, q[1]);
    case kAEL: return ael<M>(x, q[0]);
    default: return cce<M>(x);
  }
}

template <class M, bool kGeneral>
IMAE_HD Outcome<M> formula(const Row<M>& x, const Term<typename M::Scalar>& t) {
  if constexpr (kGeneral) {
    if (t.formula == kLabelSmoothing) return label_smoothing<M>(x, t.parameter[0]);
    if (t.formula == kNCE) return nce<M>(x);
  }
  const Margin<M> o = margin_formula<M>(x, t);
  return {o.value, o.slope, M::set(0), -o.slope, o.weight, x.p};
}

// What a kernel's sweep over the others found: their maximum, and relative to it the sum of exp(z_j - max) and,
// for general formulas, the sum of z_j - max. A max of -infinity stands for 0, so that both sums are well defined.
template <class M>
struct Others {
  typename M::Real max, sum_exp, sum;
};

// The row's loss, and its gradient as dL/dz_j = a exp(z_j - max) + b, dL/dz_y = g_y.
// kGeneral: whether there may be general formulas, of which a compiler else prepares a part for every row.
template <class M, bool kGeneral = true>
IMAE_HD Outcome<M> evaluate(const Loss<typename M::Scalar>& loss, const Others<M>& others, typename M::Real z_y,
                            typename M::Scalar C) {
  using S = typename M::Scalar;
  const auto zero = M::set(0), infinity = M::set(M::infinity());
  const auto none = others.sum_exp == zero;  // C = 1, or all others at -infinity
  const auto log_sum = M::log(others.sum_exp);
  auto u = (z_y - others.max) - log_sum;
  u = M::select(z_y == infinity, z_y - z_y, u);  // NaN, as softmax has it
  Row<M> x = row_of_margin<M>(u);
  x.C = C;
  if (!loss.margin) {
    x.rest = (C - S(1)) * (x.nlr + log_sum) - others.sum;
    x.rest = M::select(none, C == S(1) ? zero : infinity, x.rest);
  }
  Outcome<M> total{zero, zero, zero, zero, zero, x.p};
  for (int i = 0; i < loss.term_count; ++i) {
    const auto& t = loss.term[i];
    const Outcome<M> o = formula<M, kGeneral>(x, t);
    total.value = total.value + t.coefficient * o.value;
    total.a = total.a + t.coefficient * o.a;
    total.b = total.b + t.coefficient * o.b;
    total.g_y = total.g_y + t.coefficient * o.g_y;
    total.weight = total.weight + t.coefficient * o.weight;
  }
  total.a = M::select(none, zero, total.a / others.sum_exp);
  // NaN anywhere in the row, or an infinity that softmax cannot place: the whole row is NaN
  const auto known = u == u;
  total.value = M::select(known, total.value, u);
  total.a = M::select(known, total.a, u);
  total.b = M::select(known, total.b, u);
  total.g_y = M::select(known, total.g_y, u);
  return total;
}

}  // namespace imae
