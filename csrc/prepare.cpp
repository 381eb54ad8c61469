#include "prepare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
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

// The number of Chebyshev coefficients without the tail below `least` of the largest.
int without_tail(const double* from, int count, double least) {
  double largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(from[i]));
  while (count > 1 && std::abs(from[count - 1]) <= least * largest) --count;
  return count;
}

// Chebyshev coefficients of f over [low, high], without their tail; returns how many are left.
template <class F>
int fit(double low, double high, F f, double least, double* coefficient, int count) {
  std::vector<double> value(count);
  for (int k = 0; k < count; ++k)
    value[k] = f(0.5 * (low + high) + 0.5 * (high - low) * std::cos(kPi * (k + 0.5) / count));
  for (int j = 0; j < count; ++j) {
    double sum = 0;
    for (int k = 0; k < count; ++k) sum += value[k] * std::cos(kPi * j * (k + 0.5) / count);
    coefficient[j] = (j == 0 ? 1.0 : 2.0) / count * sum;
  }
  return without_tail(coefficient, count, least);
}

// An expansion and its coefficients, before they are put into a pool.
struct Series {
  Expansion<double> e;
  double upper[kMaxUpper] = {}, lower[kMaxLower] = {};
};

// B's integrand per unit of -log p is f(y) = expm1(beta p^lambd r) / r at p = exp(-y), and per unit of r it is f / p.
Series expand(double beta, double lambd) {
  Series series;
  Expansion<double>& e = series.e;
  const auto f = [=](double y) {
    const double r = -std::expm1(-y);
    return std::expm1(beta * std::exp(-lambd * y) * r) / r;
  };
  const auto mean = [=](double r) {
    return mean_over<32>(r, [=](double t) { return std::expm1(beta * std::pow(1 - t, lambd) * t) / (t * (1 - t)); });
  };
  e.upper_count = fit(0, 0.5, [=](double r) { return (mean(r) - beta) / r; }, 1e-13, series.upper, kMaxUpper);
  e.half = 0.5 * mean(0.5);
  if (lambd == 1) return series;  // even in u: the upper half says it all
  // Below p = 1/2, z = y - log 2 runs from 0 to where p^lambd no longer matters; s = log1p(z) suits every lambd.
  e.z_max = 40 / (lambd == 0 ? 1 : std::min(lambd, 1.0));
  e.scale = 2 / std::log1p(e.z_max);
  e.tail = lambd == 0 ? std::expm1(beta) : 0;
  const auto lower = [=](double end) {
    return mean_over<200>(end, [=](double s) { return std::exp(s) * f(kLog2 + std::expm1(s)); }) * end /
           std::expm1(end);
  };
  e.lower_count = fit(0, std::log1p(e.z_max), lower, 1e-15, series.lower, kMaxLower);
  return series;
}

// A Chebyshev series as a polynomial, by T_k = 2 x T_(k-1) - T_(k-2).
std::vector<double> to_powers(const double* from, int count) {
  std::vector<double> sum(count), before(count), last(count);
  before[0] = 1;
  sum[0] = from[0];
  if (count > 1) last[1] = 1;
  for (int k = 1; k < count; ++k) {
    for (int i = 0; i <= k; ++i) sum[i] += from[k] * last[i];
    std::vector<double> next(count);
    for (int i = 0; i < count; ++i) next[i] = (i > 0 ? 2 * last[i - 1] : 0) - before[i];
    before.swap(last);
    last.swap(next);
  }
  return sum;
}

// Puts coefficients at the end of the pool. Returns where they begin; what does not fit is not copied, and
// prepare_uncached refuses it.
template <class S>
int put(const double* from, int count, S* pool, int& used) {
  const int at = used;
  used += count;
  for (int i = 0; i < count && at + i < kSeriesPool; ++i) pool[at + i] = static_cast<S>(from[i]);
  return at;
}

void check(const Parameter& p, double value) {
  const bool above = p.range == kAboveLow ? value > p.low : value >= p.low;
  if (above && value <= p.high && (p.range != kInteger || value == std::floor(value))) return;
  if (p.range == kZeroToo && value == 0) return;
  throw std::invalid_argument(std::string("parameter ") + p.name + " is out of its range: " + std::to_string(value));
}

const FormulaInfo& info_of(FormulaId formula) { return kFormulas[static_cast<int>(formula)]; }

Term<double> read_term(const double*& at, const double* end) {
  Term<double> t;
  if (end - at < 2 || !(*at >= 0 && *at < kFormulaCount)) throw std::invalid_argument("malformed formula");
  t.formula = static_cast<FormulaId>(static_cast<int>(at[0]));
  t.coefficient = at[1];
  const FormulaInfo& info = info_of(t.formula);
  at += 2;
  if (end - at < info.parameter_count || !std::isfinite(t.coefficient))
    throw std::invalid_argument("malformed formula");
  for (int i = 0; i < info.parameter_count; ++i) {
    check(info.parameters[i], at[i]);
    t.parameter[i] = at[i];
  }
  at += info.parameter_count;
  if (t.formula == FormulaId::kIMAE || t.formula == FormulaId::kDM) t.d = 0.5 * t.parameter[info.parameter_count - 1];
  if (t.formula == FormulaId::kAGCE) t.constant = std::pow(t.parameter[0] + 1, t.parameter[1]);
  if (t.formula == FormulaId::kAUL) t.constant = t.parameter[0] - 1;
  return t;
}

// Adds a term and its series; `least`: of its largest coefficient, what matters in this precision.
template <class S>
void add(Combination<S>& to, const Term<double>& from, const std::optional<Series>& series, double least, int& used) {
  Term<S>& t = to.term[to.term_count++];
  to.needs_all_logits |= info_of(from.formula).needs_all_logits;
  t.formula = from.formula;
  t.coefficient = static_cast<S>(from.coefficient);
  std::ranges::transform(from.parameter, t.parameter, [](double x) { return static_cast<S>(x); });
  t.d = static_cast<S>(from.d);
  t.constant = static_cast<S>(from.constant);
  if (!series) return;
  const Expansion<double>& e = series->e;
  t.bounded.half = static_cast<S>(e.half);
  t.bounded.z_max = static_cast<S>(e.z_max);
  t.bounded.scale = static_cast<S>(e.scale);
  t.bounded.tail = static_cast<S>(e.tail);
  t.bounded.upper_count = without_tail(series->upper, e.upper_count, least);
  t.bounded.lower_count = without_tail(series->lower, e.lower_count, least);
  t.bounded.upper = put(to_powers(series->upper, t.bounded.upper_count).data(), t.bounded.upper_count, to.pool, used);
  t.bounded.lower = put(series->lower, t.bounded.lower_count, to.pool, used);
}

Prepared prepare_uncached(const double* at, const double* end) {
  Prepared prepared;
  int used = 0, used_by_float = 0;
  if (at == end) throw std::invalid_argument("a combination needs a formula");
  while (at != end) {
    if (prepared.f64.term_count == kMaxTerms) throw std::invalid_argument("a combination takes at most 4 formulas");
    const Term<double> t = read_term(at, end);
    std::optional<Series> series;
    if (t.formula == FormulaId::kIMAE || t.formula == FormulaId::kDM)
      series = expand(t.parameter[0], t.formula == FormulaId::kDM ? t.parameter[1] : 1);
    add(prepared.f64, t, series, 0, used);
    add(prepared.f32, t, series, 1e-8, used_by_float);
  }
  if (used > kSeriesPool)
    throw std::invalid_argument("the series of these formulas need " + std::to_string(used) +
                                " coefficients, and there is room for " + std::to_string(kSeriesPool) +
                                ": take fewer DM and IMAE in one combination, and add up the losses");
  return prepared;
}

}  // namespace

const Prepared& prepare(const double* terms, int64_t count) {
  struct Entry {
    std::vector<double> terms;
    Prepared formula;
  };
  constexpr int kEntries = 16;
  thread_local std::vector<Entry> cache;
  thread_local size_t oldest = 0;
  for (const Entry& e : cache)
    if (std::equal(e.terms.begin(), e.terms.end(), terms, terms + count)) return e.formula;
  Entry entry{{terms, terms + count}, prepare_uncached(terms, terms + count)};
  if (cache.size() < kEntries) {
    cache.reserve(kEntries);  // entries never move
    return cache.emplace_back(std::move(entry)).formula;
  }
  Entry& slot = cache[oldest++ % kEntries];
  slot = std::move(entry);
  return slot.formula;
}

}  // namespace imae
