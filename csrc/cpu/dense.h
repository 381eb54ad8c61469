// Targets with an amount of every class, on a CPU: vectors run along the classes, and some rows are read, evaluated and
// written together while they are in a near cache. What a row needs once, for its top class, has a lane for each row.
#pragma once
#include "../dense.h"
#include "dense_statistics.h"
#include "elements.h"
#include "evaluate.h"
#include "instruction_sets.h"
#include "isa.h"
#include "long_sum.h"
#include "simd.h"

namespace imae::IMAE_ISA {

// The arithmetic of classes that are no top class: their -log p comes without a logarithm of its own.
template <class S>
struct OthersMath : WideVector<S> {
  static constexpr bool kKnowsLogP = true;
};

template <class S>
struct AtOthers {
  using M = OthersMath<S>;
  using Real = typename M::Real;
  using One = typename Vector<S>::Real;
  const One *p, *nlp, *rest;
  S C;
  static IMAE_INLINE Real joined(const One* from, int k) {
    return join<Real>(k, [=](int j) __attribute__((always_inline)) { return from[j]; });
  }
  IMAE_INLINE Row<M> operator()(int k) const {
    Row<M> x;
    x.p = joined(p, k);
    x.r = S(1) - x.p;
    x.nlp = joined(nlp, k);
    x.nlr = -M::log1p(-x.p);
    x.u = x.nlr - x.nlp;
    x.odds = x.p / x.r;
    x.rest = C == 2 ? x.nlr : joined(rest, k);
    x.C = C;
    return x;
  }
};

template <class T>
class DenseRows : DenseStatistics<T> {
  using Base = DenseStatistics<T>;
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  static constexpr int kLanes = V::kLanes;
  using Base::along_;
  using Base::amounts;
  using Base::as_they_are;
  using Base::count_;
  using Base::d_;
  using Base::exponentials;
  using Base::f_;
  using Base::first_;
  using Base::fold_slots;
  using Base::formula;
  using Base::kAllLogits;
  using Base::kCrossEntropy;
  using Base::kMargins;
  using Base::live_;
  using Base::log_all_;
  using Base::m_;
  using Base::masked_;
  using Base::of_others_;
  using Base::own;
  using Base::plain_;
  using Base::point_at_rows;
  using Base::rows_;
  using Base::shift_;
  using Base::slots_;
  using Base::sum_exp_;
  using Base::t_;
  using Base::t_m_;
  using Base::tail_;
  using Base::to_p_;
  using Base::top_;
  using Base::top_class_;
  using Base::weight_;
  using Base::whole_;
  using Base::z_;

 public:
  using Base::ready;
  explicit DenseRows(const Dense& d) : Base(d) {
    for (int i = 0; i < formula().term_count; ++i) {
      only_cce_ = only_cce_ && formula().term[i].formula == FormulaId::kCCE;
      coefficient_ += formula().term[i].coefficient;
    }
  }

  // Rows [begin, end).
  void run(int64_t begin, int64_t end, bool wants_example_weights, BinarySums& sums) {
    found_.wants_example_weights = wants_example_weights;
    for (first_ = begin; first_ < end; first_ += rows_) {
      count_ = static_cast<int>(end - first_ < rows_ ? end - first_ : rows_);
      point_at_rows();
      if (only_cce_ && !wants_example_weights)
        cross_entropy();
      else if (formula().needs_all_logits)
        any_formula<true>();
      else
        any_formula<false>();
      finish(sums);
    }
  }

 private:
  void cross_entropy() {
    this->template read_rows<kCrossEntropy>();
    const S c = coefficient_;
    value_ = c * (product<V>(t_m_, top_class_.nlp) + (of_others_ * log_all_ - along_));
    example_weight_ = Real{};
    if (!d_.grad) return;
    const Real f = c * factors();
    const Real of_e = (of_others_ + t_m_) * to_p_ * f;
    const Real of_top = (of_others_ * top_class_.p - product<V>(t_m_, top_class_.r)) * f;
    for (int l = 0; l < count_; ++l) {
      const S *e = exponentials(l), *t = t_[l];
      const S a = of_e[l], b = f[l];
      if (as_they_are())
        write(l, of_top[l], [=](int64_t k, int64_t at) __attribute__((always_inline)) {
          return load(e + k * kLanes) * a - load(t + at) * b;
        });
      else
        write(l, of_top[l], [=, this](int64_t k, int64_t at) __attribute__((always_inline)) {
          return load(e + k * kLanes) * a - amounts(t, at) * b;
        });
    }
  }

  // What is gathered of the classes with an amount until there is enough to evaluate.
  struct Batch {
    int count = 0;
    Real p[kMany], nlp[kMany], rest[kMany], t[kMany];
    int row[kMany];
    int64_t slot[kMany];
  };
  template <bool kAll>
  void any_formula() {
    this->template read_rows<kAll ? kAllLogits : kMargins>();
    Outcome<V> top;
    const Real plain = V::select(masked_ > Real{}, V::set(-V::infinity()), plain_);
    const Statistics<Real> found{shift_, sum_exp_, plain, top_};
    evaluate_groups<kAll, S>(f_, &found, &top, 1);
    for (auto& sum : others_)
      for (auto& row : sum) row = {};
    const S C1 = static_cast<S>(d_.C - 1);
    const Real sum_nlp = top_class_.nlp + V::select(sum_exp_ == Real{}, Real{}, (C1 - masked_) * log_all_ - plain_);
    for (int l = 0; l < count_; ++l)
      if (live_.at[l]) collect<kAll>(l, sum_nlp[l]);
    flush<kAll>();
    Real sum[4];
    for (int i = 0; i < 4; ++i) {
      Real of_rows[kLanes];
      for (int l = 0; l < kLanes; ++l) of_rows[l] = others_[i][l].all();
      sum[i] = reduce_each<kLanes>(of_rows, Plus{});
    }
    value_ = sum[0] + product<V>(t_m_, top.value);
    example_weight_ = sum[1] + product<V>(t_m_, top.example_weight);
    if (!d_.grad) return;
    const Real f = factors(), A = sum[2], B = sum[3];
    const Real along = (A * to_p_ + product<V>(t_m_, top.a)) * f, all = (B + product<V>(t_m_, top.b)) * f;
    const Real of_top = (top_class_.p * A + B + product<V>(t_m_, top.g_y)) * f;
    for (int l = 0; l < count_; ++l) {
      const S *e = exponentials(l), *h = own(l);
      const S a = along[l], b = all[l], c = f[l];
      write(l, of_top[l], [=](int64_t k, int64_t) __attribute__((always_inline)) {
        return load(e + k * kLanes) * a + (load(h + k * kLanes) * c + b);
      });
    }
  }
  template <bool kAll>
  void collect(int l, S sum_nlp) {
    const Real all = V::set(masked_[l] > 0 ? V::infinity() : sum_nlp);
    const Real without = V::set(masked_[l] > 1 ? V::infinity() : sum_nlp);
    const S to_p = to_p_[l], log_all = log_all_[l], shift = shift_[l];
    const Int m = m_[l];
    fold_slots(0, slots_, 0, [&](int, int64_t k, int64_t at, auto tail) __attribute__((always_inline)) {
      const auto is_top = V::iota() + static_cast<Int>(at) == m;
      const Real t = V::select(is_top, Real{}, this->template only_new<decltype(tail)::value>(amounts(t_[l], at)));
      if (all_lanes(t == Real{})) {
        store(own(l) + k * kLanes, Real{});
        return 0;
      }
      Batch& b = batch_;
      const Real x = load(z_[l] + at) - shift;
      b.p[b.count] = V::select(t == Real{}, Real{}, load(exponentials(l) + k * kLanes) * to_p);
      b.nlp[b.count] = V::select(t == Real{}, Real{}, log_all - x);
      if constexpr (kAll) b.rest[b.count] = V::select(x == V::set(-V::infinity()), without, all - b.nlp[b.count]);
      b.t[b.count] = t;
      b.row[b.count] = l;
      b.slot[b.count] = k;
      if (++b.count == kMany) flush<kAll>();
      return 0;
    });
  }
  template <bool kAll>
  void flush() {
    Batch& b = batch_;
    for (int i = b.count; i % kAtOnce<S> != 0; ++i) b.p[i] = b.nlp[i] = b.rest[i] = Real{};
    evaluate_many<S>(formula(), b.count, AtOthers<S>{b.p, b.nlp, b.rest, static_cast<S>(d_.C)}, found_);
    Real value{}, example_weight{}, A{}, B{};
    for (int i = 0; i < b.count; ++i) {
      const Real t = b.t[i], ratio = t * (found_.a[i] / (S(1) - b.p[i]));
      value += product<V>(t, found_.value[i]);
      example_weight += t * found_.example_weight[i];
      A += ratio;
      if constexpr (kAll) {
        B += t * found_.b[i];
        store(own(b.row[i]) + b.slot[i] * kLanes, t * (found_.g_y[i] - found_.b[i]) - b.p[i] * ratio);
      } else {
        store(own(b.row[i]) + b.slot[i] * kLanes, -ratio);  // a and p a / r are a / r
      }
      if (i + 1 < b.count && b.row[i + 1] == b.row[i]) continue;
      others_[0][b.row[i]].add(value);
      others_[1][b.row[i]].add(example_weight);
      others_[2][b.row[i]].add(A);
      others_[3][b.row[i]].add(B);
      value = example_weight = A = B = Real{};
    }
    b.count = 0;
  }

  // What the gradient of each row is multiplied by.
  Real factors() const {
    const S divisor = *static_cast<const S*>(d_.divisor);
    const S* outer = static_cast<const S*>(d_.grad_output);
    if (!outer || d_.grad_output_is_scalar) return weight_ * ((outer ? *outer : S(1)) / divisor);
    Real f{};
    for (int l = 0; l < count_; ++l) f[l] = weight_[l] * (outer[first_ + l] / divisor);
    return f;
  }
  // g(slot, class): the row's gradient. The last vector first: where it repeats classes, others follow.
  template <class G>
  IMAE_INLINE void write(int l, S of_top, G g) const {
    T* grad = static_cast<T*>(d_.grad) + (first_ + l) * d_.C;
    if (!live_.at[l]) {
      __builtin_memset(grad, 0, d_.C * sizeof(T));
      return;
    }
    if (d_.C < kLanes) {
      const Real only = g(0, 0);
      for (int64_t j = 0; j < d_.C; ++j) store_one(grad + j, only[j]);
    } else {
      if (whole_ < slots_) store(grad + tail_, g(whole_, tail_));
      for (int64_t k = 0; k < whole_; ++k) store(grad + k * kLanes, g(k, k * kLanes));
    }
    store_one(grad + m_[l], of_top);
  }
  void finish(BinarySums& sums) {
    for (int l = 0; l < count_; ++l) {
      const bool live = live_.at[l];
      const S w = weight_[l], v = live ? value_[l] * w : S(0);
      sums.targets += w;
      sums.value += double(v);
      if (live) sums.example_weight += double(example_weight_[l]) * w;
      if (d_.value) static_cast<S*>(d_.value)[first_ + l] = v;
    }
  }

  bool only_cce_ = true;
  S coefficient_ = 0;
  Real value_, example_weight_;
  Batch batch_;
  Many<S> found_;
  LongSum<V> others_[4][kLanes];
};

template <class T>
bool dense(const GroupedDense& d, int64_t begin, int64_t end) {
  DenseRows<T> rows(d);
  if (!rows.ready()) return false;
  for (int64_t i = begin; i < end; ++i) {
    BinarySums sums;
    const int64_t last = (i + 1) * d.rows_in_part;
    rows.run(i * d.rows_in_part, last < d.N ? last : d.N, d.wants_example_weights, sums);
    d.sums[i] = sums;
  }
  return true;
}

}  // namespace imae::IMAE_ISA
