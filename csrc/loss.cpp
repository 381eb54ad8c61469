#include "loss.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

namespace imae {
namespace {

constexpr double kPi = std::numbers::pi, kLog2 = std::numbers::ln2;

// Gauss-Legendre rule on [0, 1], by Newton's method on the Legendre polynomial
template <int kNodes>
struct GaussLegendre {
  std::array<double, kNodes> node, weight;
  GaussLegendre() {
    for (int i = 0; i < kNodes; ++i) {
      double x = std::cos(kPi * (i + 0.75) / (kNodes + 0.5)), slope = 0;
      for (int step = 0; step < 8; ++step) {
        double before = 1, value = x;
        for (int k = 2; k <= kNodes; ++k) {
          const double next = ((2 * k - 1) * x * value - (k - 1) * before) / k;
          before = value;
          value = next;
        }
        slope = kNodes * (x * value - before) / (x * x - 1);
        x -= value / slope;
      }
      node[i] = 0.5 * (1 + x);
      weight[i] = 1 / ((1 - x * x) * slope * slope);
    }
  }
};

template <int kNodes, class F>
double mean_over(double end, F f) {  // mean of f over [0, end]
  static const GaussLegendre<kNodes> rule;
  double sum = 0;
  for (int i = 0; i < kNodes; ++i) sum += rule.weight[i] * f(end * rule.node[i]);
  return sum;
}

// Chebyshev coefficients of f over [low, high], without the tail below so much of the largest; returns their number
template <class F>
int fit(double low, double high, F f, double least, double* coefficient, int count) {
  std::vector<double> value(count);
  for (int k = 0; k < count; ++k)
    value[k] = f(0.5 * (low + high) + 0.5 * (high - low) * std::cos(kPi * (k + 0.5) / count));
  double largest = 0;
  for (int j = 0; j < count; ++j) {
    double sum = 0;
    for (int k = 0; k < count; ++k) sum += value[k] * std::cos(kPi * j * (k + 0.5) / count);
    coefficient[j] = (j == 0 ? 1.0 : 2.0) / count * sum;
    largest = std::max(largest, std::abs(coefficient[j]));
  }
  while (count > 1 && std::abs(coefficient[count - 1]) <= least * largest) --count;
  return count;
}

// B's integrand per unit of -log p is f(y) = expm1(beta p^lambd r) / r at p = exp(-y), and per unit of r it is f / p.
Expansion<double> expand(double beta, double lambd) {
  Expansion<double> e;
  const auto f = [=](double y) {
    const double r = -std::expm1(-y);
    return std::expm1(beta * std::exp(-lambd * y) * r) / r;
  };
  const auto mean = [=](double r) {
    return mean_over<32>(r, [=](double t) { return std::expm1(beta * std::pow(1 - t, lambd) * t) / (t * (1 - t)); });
  };
  e.upper_count = fit(0, 0.5, [=](double r) { return (mean(r) - beta) / r; }, 1e-13, e.upper, kMaxUpper);
  e.half = 0.5 * mean(0.5);
  if (lambd == 1) return e;  // even in u: the upper half says it all
  // Below p = 1/2, z = y - log 2 runs from 0 to where p^lambd no longer matters; s = log1p(z) suits every lambd.
  e.z_max = 40 / (lambd == 0 ? 1 : std::min(lambd, 1.0));
  e.scale = 2 / std::log1p(e.z_max);
  e.tail = lambd == 0 ? std::expm1(beta) : 0;
  const auto lower = [=](double end) {
    return mean_over<200>(end, [=](double s) { return std::exp(s) * f(kLog2 + std::expm1(s)); }) * end /
           std::expm1(end);
  };
  e.lower_count = fit(0, std::log1p(e.z_max), lower, 1e-15, e.lower, kMaxLower);
  return e;
}

Expansion<float> to_float(const Expansion<double>& from) {
  Expansion<float> e;
  const auto shorten = [](const double* c, int n, float* out) {
    double largest = 0;
    for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(c[i]));
    while (n > 1 && std::abs(c[n - 1]) <= 1e-8 * largest) --n;
    std::copy(c, c + n, out);
    return n;
  };
  e.upper_count = shorten(from.upper, from.upper_count, e.upper);
  e.lower_count = shorten(from.lower, from.lower_count, e.lower);
  e.half = static_cast<float>(from.half);
  e.z_max = static_cast<float>(from.z_max);
  e.scale = static_cast<float>(from.scale);
  e.tail = static_cast<float>(from.tail);
  return e;
}

void check(const Parameter& p, double value) {
  const bool above = p.range == kAboveLow ? value > p.low : value >= p.low;
  if (above && value <= p.high && (p.range != kInteger || value == std::floor(value))) return;
  if (p.range == kZeroToo && value == 0) return;
  throw std::invalid_argument(std::string("parameter ") + p.name + " is out of its range: " + std::to_string(value));
}

Term<double> prepare_term(const double*& at, const double* end) {
  Term<double> t;
  if (end - at < 2 || !(*at >= 0 && *at < static_cast<int>(kFormulaCount)))
    throw std::invalid_argument("malformed formula");
  t.formula = static_cast<int>(at[0]);
  t.coefficient = at[1];
  const FormulaInfo& info = kFormulas[t.formula];
  at += 2;
  if (end - at < info.parameter_count || !std::isfinite(t.coefficient))
    throw std::invalid_argument("malformed formula");
  for (int i = 0; i < info.parameter_count; ++i) {
    check(info.parameters[i], at[i]);
    t.parameter[i] = at[i];
  }
  at += info.parameter_count;
  if (t.formula == kIMAE || t.formula == kDM) {
    t.d = 0.5 * t.parameter[info.parameter_count - 1];
    t.bounded = expand(t.parameter[0], t.formula == kDM ? t.parameter[1] : 1);
  }
  if (t.formula == kAGCE) t.constant = std::pow(t.parameter[0] + 1, t.parameter[1]);
  if (t.formula == kAUL) t.constant = t.parameter[0] - 1;
  return t;
}

Term<float> to_float(const Term<double>& from) {
  Term<float> t;
  t.formula = from.formula;
  t.coefficient = static_cast<float>(from.coefficient);
  std::copy(std::begin(from.parameter), std::end(from.parameter), t.parameter);
  t.d = static_cast<float>(from.d);
  t.constant = static_cast<float>(from.constant);
  t.bounded = to_float(from.bounded);
  return t;
}

PreparedLoss prepare_uncached(const double* at, const double* end) {
  PreparedLoss loss;
  if (at == end) throw std::invalid_argument("a loss needs a formula");
  while (at != end) {
    if (loss.f64.term_count == kMaxTerms) throw std::invalid_argument("a loss takes at most 4 formulas");
    const Term<double> t = prepare_term(at, end);
    loss.f64.margin &= kFormulas[t.formula].margin;
    loss.f64.term[loss.f64.term_count++] = t;
  }
  loss.f32.term_count = loss.f64.term_count;
  loss.f32.margin = loss.f64.margin;
  for (int i = 0; i < loss.f64.term_count; ++i) loss.f32.term[i] = to_float(loss.f64.term[i]);
  return loss;
}

}  // namespace

const PreparedLoss& prepare(const double* terms, int64_t count) {
  struct Entry {
    std::vector<double> terms;
    PreparedLoss loss;
  };
  constexpr int kEntries = 16;
  thread_local std::vector<Entry> cache;
  thread_local size_t oldest = 0;
  for (const Entry& e : cache)
    if (std::equal(e.terms.begin(), e.terms.end(), terms, terms + count)) return e.loss;
  Entry entry{{terms, terms + count}, prepare_uncached(terms, terms + count)};
  if (cache.size() < kEntries) {
    cache.reserve(kEntries);  // entries never move
    return cache.emplace_back(std::move(entry)).loss;
  }
  Entry& slot = cache[oldest++ % kEntries];
  slot = std::move(entry);
  return slot.loss;
}

}  // namespace imae
