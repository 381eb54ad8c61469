// Targets with an amount of every class, on a CPU: a row at a time, vectors along its classes. The row, its amounts and
// exponentials lie in scratch memory, padded to whole vectors with classes that have neither probability nor amount.
#pragma once
#include "../dense.h"
#include "elements.h"
#include "evaluate.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <class S>
class DenseRow {
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kAtOnce = 32 * kLanes;  // classes that are added up in S; no sum has many terms

 public:
  explicit DenseRow(const Dense& d)
      : d_(d),
        padded_((d.C + kLanes - 1) / kLanes * kLanes),
        memory_(static_cast<S*>(std::aligned_alloc(64, (4 * padded_ * sizeof(S) + 63) / 64 * 64))),
        z_(memory_),
        t_(z_ + padded_),
        e_(t_ + padded_),
        h_(e_ + padded_) {
    f_.formula = d.formula;
    f_.C = d.C;
    for (int i = 0; i < formula().term_count; ++i) {
      only_cce_ = only_cce_ && formula().term[i].formula == FormulaId::kCCE;
      coefficient_ += formula().term[i].coefficient;
    }
  }
  DenseRow(const DenseRow&) = delete;
  ~DenseRow() { std::free(memory_); }
  bool ready() const { return memory_ != nullptr; }

  // Value and example weight, and the coefficients of the gradient; false where there is no amount of any class.
  template <class T>
  bool read(const T* logits, const S* target) {
    if (!read_amounts(target)) return false;
    for (int64_t k = 0; k < padded_; k += kLanes)
      if (k + kLanes <= d_.C)
        store(z_ + k, load(logits + k));
      else
        for (int64_t j = k; j < padded_; ++j) z_[j] = j < d_.C ? load_one(logits + j) : -V::infinity();
    find_top();
    exponentiate();
    evaluate_top();
    if (only_cce_)
      evaluate_others([this](int64_t k, Real t, Sums& sums)
                          __attribute__((always_inline)) { cross_entropy(k, t, sums); });
    else
      evaluate_others([this](int64_t k, Real t, Sums& sums)
                          __attribute__((always_inline)) { any_formula(k, t, sums); });
    return true;
  }
  template <class T>
  void write(T* grad, S factor) const {
    const S along_e = A_ * r_m_ * inverse_ + a_m_, all = B_ + b_m_;
    const auto g = [&](int64_t k) __attribute__((always_inline)) {
      return (load(e_ + k) * along_e + (load(h_ + k) + all)) * factor;
    };
    int64_t k = 0;
    for (; k + kLanes <= d_.C; k += kLanes) store(grad + k, g(k));
    if (k < d_.C) {
      const Real last = g(k);
      for (int64_t j = k; j < d_.C; ++j) store_one(grad + j, last[j - k]);
    }
    store_one(grad + m_, (p_m_ * A_ + B_ + g_m_) * factor);
  }
  S value = 0, example_weight = 0;

 private:
  struct Sums {
    Real value, example_weight, A, B;
  };
  const Combination<S>& formula() const { return d_.formula->template as<S>(); }

  // Entries from k on, 0 behind the last.
  IMAE_INLINE Real part(const S* from, int64_t k) const {
    if (k + kLanes <= d_.C) return load(from + k);
    Real x{};
    for (int64_t j = k; j < d_.C; ++j) x[j - k] = from[j];
    return x;
  }

  bool read_amounts(const S* target) {
    const S e = static_cast<S>(d_.smoothing), rest = e / static_cast<S>(d_.C);
    const S* of_class = static_cast<const S*>(d_.class_weight);
    bool any = false;
    for (int64_t k = 0; k < padded_; k += kLanes) {
      Real t = part(target, k);
      if (e != 0) t = (1 - e) * t + rest;
      if (of_class) t *= part(of_class, k);
      if (k + kLanes > d_.C) t = V::select(V::iota() < static_cast<Int>(d_.C - k), t, Real{});
      store(t_ + k, t);
      any = any || !all_lanes(t == Real{});
    }
    return any;
  }

  S maximum() const {
    Real top = V::set(-V::infinity());
    for (int64_t k = 0; k < padded_; k += kLanes) top = V::max(load(z_ + k), top);
    return reduce_one<kLanes>(top, Max{});
  }
  // Takes the first of the largest out of the row.
  void find_top() {
    const S top = maximum();
    m_ = 0;
    for (int64_t k = 0; k < padded_; k += kLanes) {
      if (all_lanes(load(z_ + k) != top)) continue;
      for (m_ = k; z_[m_] != top;) ++m_;
      break;
    }
    if (m_ >= d_.C) m_ = 0;  // nothing but -infinity
    z_m_ = z_[m_];
    t_m_ = t_[m_];
    z_[m_] = -V::infinity();
    t_[m_] = 0;
    const S of_others = maximum();
    shift_ = of_others == -V::infinity() ? S(0) : of_others;
  }

  void exponentiate() {
    double exp = 0, plain = 0;
    Int masked = 0;
    for (int64_t begin = 0; begin < padded_; begin += kAtOnce) {
      const int64_t end = begin + kAtOnce < padded_ ? begin + kAtOnce : padded_;
      Real some{}, some_plain{};
      typename V::Ints without{};
      for (int64_t k = begin; k < end; k += kLanes) {
        const Real x = load(z_ + k) - shift_, e = V::exp_sweep(x);
        const auto none = x == V::set(-V::infinity());
        store(z_ + k, x);
        store(e_ + k, e);
        some += e;
        some_plain += V::select(none, Real{}, x);
        without += none;
      }
      exp += reduce_one<kLanes>(some, Plus{});
      plain += reduce_one<kLanes>(some_plain, Plus{});
      masked -= reduce_one<kLanes>(without, Plus{});
    }
    sum_exp_ = static_cast<S>(exp);
    plain_ = static_cast<S>(plain);
    masked_ = static_cast<int64_t>(masked) - (padded_ - d_.C) - 1;  // without the padding and the top class itself
  }

  void evaluate_top() {
    const bool none = sum_exp_ == 0;
    inverse_ = none ? S(0) : 1 / sum_exp_;
    const S nan = std::numeric_limits<S>::quiet_NaN(), infinity = V::infinity(), C1 = static_cast<S>(d_.C - 1);
    log_sum_ = V::log(V::set(sum_exp_))[0];
    const S u = z_m_ == infinity ? nan : (z_m_ - shift_) - log_sum_;
    const Row<V> x = row_of_margin<V>(V::set(u));
    p_m_ = u != u ? nan : x.p[0];
    r_m_ = u != u ? nan : x.r[0];
    nlr_m_ = u != u ? nan : x.nlr[0];
    const S to_each = log_sum_ + nlr_m_;
    // -log p_j of all classes that have any probability, added up
    sum_nlp_ = x.nlp[0] + (none ? S(0) : (C1 - static_cast<S>(masked_)) * to_each - plain_);
    value = example_weight = a_m_ = b_m_ = g_m_ = 0;
    if (t_m_ == 0) return;
    Outcome<V> o;
    const S plain = masked_ > 0 ? -infinity : plain_;
    evaluate_group<true, S>(f_, {V::set(shift_), V::set(sum_exp_), V::set(plain), V::set(z_m_)}, o);
    value = t_m_ * o.value[0];
    example_weight = t_m_ * o.example_weight[0];
    a_m_ = t_m_ * o.a[0];
    b_m_ = t_m_ * o.b[0];
    g_m_ = t_m_ * o.g_y[0];
  }

  template <class Evaluate>
  IMAE_INLINE void evaluate_others(Evaluate evaluate) {
    double sum[4] = {};
    for (int64_t begin = 0; begin < padded_; begin += kAtOnce) {
      const int64_t end = begin + kAtOnce < padded_ ? begin + kAtOnce : padded_;
      Sums some{};
      for (int64_t k = begin; k < end; k += kLanes) {
        const Real t = load(t_ + k);
        if (all_lanes(t == Real{}))
          store(h_ + k, Real{});
        else
          evaluate(k, t, some);
      }
      const Real* part[] = {&some.value, &some.example_weight, &some.A, &some.B};
      for (int i = 0; i < 4; ++i) sum[i] += reduce_one<kLanes>(*part[i], Plus{});
    }
    value += static_cast<S>(sum[0]);
    example_weight += static_cast<S>(sum[1]);
    A_ = static_cast<S>(sum[2]);
    B_ = static_cast<S>(sum[3]);
  }

  IMAE_INLINE Real log_p(int64_t k) const {
    const Real x = load(z_ + k);
    const Real y = (x - log_sum_) - nlr_m_;
    return V::select(x == V::set(-V::infinity()), nlr_m_ == nlr_m_ ? x : V::set(nlr_m_), y);
  }

  // Its a / r is 1, and p_j t_j a_j / r_j - t_j g_j is t_j.
  IMAE_INLINE void cross_entropy(int64_t k, Real t, Sums& sums) {
    const Real some = t * coefficient_, p = load(e_ + k) * (r_m_ * inverse_);
    sums.value -= V::select(t == Real{}, Real{}, some * log_p(k));
    sums.example_weight += some * (1 - p) * S(2);
    sums.A += some;
    store(h_ + k, -some);
  }

  IMAE_INLINE void any_formula(int64_t k, Real t, Sums& sums) {
    const S C1 = static_cast<S>(d_.C - 1);
    const Real log_p_k = log_p(k), p = load(e_ + k) * (r_m_ * inverse_), r = 1 - p, log_r = V::log1p(-p);
    const auto none = log_p_k == V::set(-V::infinity()), no_amount = t == Real{};
    Statistics<Real> found{Real{}, V::set(1), Real{}, V::select(none, log_p_k, log_p_k - log_r)};
    if (d_.C > 2) {  // so that evaluate() finds the others' sum of -log p_j
      const S all = masked_ > 0 ? V::infinity() : sum_nlp_, without = masked_ > 1 ? V::infinity() : sum_nlp_;
      found.sum = -C1 * log_r - V::select(none, V::set(without), V::set(all) + V::select(none, Real{}, log_p_k));
    }
    Outcome<V> o;
    evaluate_group<true, S>(f_, found, o);
    const auto times = [&](Real x) __attribute__((always_inline)) { return V::select(no_amount, Real{}, t * x); };
    const Real ratio = times(o.a / r);
    sums.value += times(o.value);
    sums.example_weight += times(o.example_weight);
    sums.A += ratio;
    sums.B += times(o.b);
    store(h_ + k, V::select(no_amount, Real{}, t * (o.g_y - o.b) - p * ratio));
  }

  const Dense& d_;
  Forward f_;
  int64_t padded_;
  S* memory_;
  S *z_, *t_, *e_, *h_;  // logits less the shift; amounts; exponentials; what of a gradient is the class's own
  bool only_cce_ = true;
  S coefficient_ = 0;
  int64_t m_ = 0, masked_ = 0;  // the top class; others without any probability
  S z_m_ = 0, t_m_ = 0, shift_ = 0, sum_exp_ = 0, plain_ = 0, inverse_ = 0, log_sum_ = 0, sum_nlp_ = 0;
  S p_m_ = 0, r_m_ = 0, nlr_m_ = 0, a_m_ = 0, b_m_ = 0, g_m_ = 0, A_ = 0, B_ = 0;
};

template <class T>
bool dense(const Dense& d, int64_t begin, int64_t end, BinarySums& sums) {
  using S = ScalarOf<T>;
  DenseRow<S> row(d);
  if (!row.ready()) return false;
  const S* of_row = static_cast<const S*>(d.sample_weight);
  for (int64_t i = begin; i < end; ++i) {
    const S w = of_row ? of_row[i] : S(1);
    const bool live =
        w != 0 && row.read(static_cast<const T*>(d.logits) + i * d.C, static_cast<const S*>(d.target) + i * d.C);
    sums.targets += w;
    if (live) {
      sums.value += double(row.value * w);
      sums.example_weight += double(row.example_weight) * w;
    }
    if (d.value) static_cast<S*>(d.value)[i] = live ? row.value * w : S(0);
    if (!d.grad) continue;
    T* grad = static_cast<T*>(d.grad) + i * d.C;
    if (live)
      row.write(grad, w * (static_cast<const S*>(d.grad_output)[d.grad_output_is_scalar ? 0 : i] /
                           *static_cast<const S*>(d.divisor)));
    else
      __builtin_memset(grad, 0, d.C * sizeof(T));
  }
  return true;
}

}  // namespace imae::IMAE_ISA
