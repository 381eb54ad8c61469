// Two labels a row, on a CPU: the sweep of class labels (sweeps.h), relative to the first label, whose sum less the
// other label's exponential is that of the classes that are neither. Where the difference would cancel, these are added
// up by themselves. A row of which the sums come near the ends of float's range is taken again, each label for itself.
#pragma once
#include "../mixed.h"
#include "elements.h"
#include "evaluate.h"
#include "group.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"
#include "sweeps.h"

namespace imae::IMAE_ISA {

template <class T>
class MixedRows {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  static constexpr int kLanes = V::kLanes;

 public:
  explicit MixedRows(const Mixed& m) : m_(m) {
    f_.formula = m.formula;
    f_.C = m.C;
    const int64_t fit = kBlockBytes / (padded<S>(m.C) * int64_t(sizeof(S)));
    rows_ = static_cast<int>(fit < 1 ? 1 : fit < kLanes ? fit : kLanes);
    block_.count = 1;
    block_.open(m.grad, m.N, m.C);
  }

  // Rows [begin, end).
  void run(int64_t begin, int64_t end, BinarySums& sums) {
    for (first_ = begin; first_ < end; first_ += rows_) {
      count_ = static_cast<int>(end - first_ < rows_ ? end - first_ : rows_);
      choose_labels(sums);
      if (m_.formula->needs_all_logits())
        read_and_evaluate<true>();
      else
        read_and_evaluate<false>();
      finish(sums);
    }
  }

 private:
  const T* row(int l) const { return static_cast<const T*>(m_.logits) + (first_ + l) * m_.C; }

  // Amounts with their weights. Where there is but one label, it stands for both, the other's amount is 0.
  void choose_labels(BinarySums& sums) {
    const S *lam = static_cast<const S*>(m_.lam), *other_lam = static_cast<const S*>(m_.other_lam);
    const S *of_class = static_cast<const S*>(m_.class_weight), *of_row = static_cast<const S*>(m_.sample_weight);
    for (int l = 0; l < kLanes; ++l) {
      t_a_[l] = t_b_[l] = 0;
      a_.at[l] = b_.at[l] = -1;
      if (l >= count_) continue;
      const int64_t i = first_ + l;
      int64_t a = m_.target[i], b = m_.other[i];
      if (a == m_.ignore_index) continue;
      const S w = of_row ? of_row[i] : S(1), first = lam[m_.lam_is_scalar ? 0 : i];
      S t_a = first * w, t_b = (other_lam ? other_lam[m_.other_lam_is_scalar ? 0 : i] : 1 - first) * w;
      sums.targets += w;
      if (b == m_.ignore_index) t_b = 0, b = a;
      if (of_class) t_a *= of_class[a], t_b *= of_class[b];
      if (w == 0) t_a = t_b = 0;
      if (a == b) t_a += t_b, t_b = 0;
      if (t_a == 0) t_a = t_b, t_b = 0, a = b;
      if (t_b == 0) b = a;
      if (t_a == 0) continue;
      t_a_[l] = t_a, t_b_[l] = t_b;
      a_.at[l] = static_cast<Int>(a), b_.at[l] = static_cast<Int>(b);
    }
  }

  template <bool kAllLogits>
  void read_and_evaluate() {
    Real exp[kLanes], plain[kLanes];
    Real z_a{}, z_b{};
    for (int l = 0; l < kLanes; ++l) {
      exp[l] = plain[l] = Real{};
      const Sending<T> waiting = block_.outlet.send(l);
      if (!a_.live(l)) {
        waiting.all();
        continue;
      }
      z_a[l] = load_one(row(l) + a_[l]);
      z_b[l] = load_one(row(l) + b_[l]);
      const Sums<Real> sums = read_row<kAllLogits ? kPlain : 0>(l, z_a[l], waiting);
      exp[l] = sums.exp;
      plain[l] = sums.plain;
    }
    const auto two = a_.all() != b_.all();
    const Real not_a = reduce_each<kLanes>(exp, Plus{}), x_b = V::select(two, z_b - z_a, Real{});
    e_b_ = V::exp_sweep(x_b);
    found_[0] = {z_a, not_a, Real{}, z_a};
    const Real neither = find_neither(two, not_a);
    found_[1] = {z_a, V::select(two, neither + S(1), not_a), Real{}, z_b};
    auto known = not_a == not_a;
    if constexpr (kAllLogits) {
      found_[0].sum = reduce_each<kLanes>(plain, Plus{});
      found_[1].sum = found_[0].sum - x_b;
      known = known & (x_b > -V::infinity());
    }
    evaluate<kAllLogits>();
    // as in read_steep: also a coefficient that float may not hold, beside a constant that is large
    known = known & (not_a > S(0x1p-100)) & (not_a < S(0x1p40)) & (found_[1].sum_exp < S(0x1p40));
    const auto done = (known & (V::abs(of_[0].a) < S(0x1p60)) & (V::abs(of_[1].a) < S(0x1p60))) | (a_.all() < 0);
    for (int l = 0; l < kLanes; ++l) apart_.at[l] = 0;
    if (all_lanes(done)) return;
    for (int l = 0; l < kLanes; ++l)
      if (!done[l]) read_apart<kAllLogits>(l);
    evaluate<kAllLogits>();
  }
  // The sum over the classes that are neither label: a difference while it loses a bit at most, that is while the sum
  // without the second label is at least half of that without the first.
  Real find_neither(typename V::Ints two, Real not_a) {
    Real neither = V::select(two, not_a - e_b_, not_a);
    const auto lost = two & (neither + S(1) < not_a * S(0.5));
    for (int l = 0; !all_lanes(lost == 0) && l < count_; ++l)
      if (lost[l]) neither[l] = add_up_neither(l);
    return neither;
  }
  template <bool kAllLogits>
  void evaluate() {
    evaluate_groups<kAllLogits, S>(f_, found_, of_, 2);
  }

  S* kept(int l) { return block_.row(m_.C, 0, l); }
  // All classes but the first label.
  template <int kSums>
  IMAE_INLINE Sums<Real> read_row(int l, S shift, Sending<T> waiting) {
    const T* z = row(l);
    S* to = kept(l);
    if (m_.C < kLanes) return read_short(to, z, a_[l], shift);
    const int64_t later = m_.C <= kLater ? rows_ * m_.C : kLater;
    BesideLong<T> beside{z + (is_long<T>(m_.C) && kSoon < later ? kSoon : later), z + later,
                         reinterpret_cast<const T*>(to)};
    if (block_.kept && m_.grad && !block_.outlet.is_open())
      beside.grad = static_cast<const T*>(m_.grad) + (first_ + l) * m_.C;
    return exponentiate_row<kSums>(to, block_.kept, z, m_.C, a_[l], shift, beside, waiting);
  }
  // A row that is shorter than a vector.
  Sums<Real> read_short(S* to, const T* z, Int a, S shift) const {
    Real x = V::set(-V::infinity());
    for (int64_t j = 0; j < m_.C; ++j) x[j] = load_one(z + j) - shift;
    const Real e = V::exp_sweep(x);
    store(to, e);
    const auto counts = (V::iota() < static_cast<Int>(m_.C)) & (V::iota() != a);
    return {V::select(counts, e, Real{}), V::select(counts, x, Real{})};
  }
  // The functions that give a row's exponentials, as sweeps.h has them.
  template <class F>
  IMAE_INLINE void with_exponentials(int l, F f) {
    IMAE_ISA::with_exponentials<T>(block_.kept ? kept(l) : nullptr, row(l), found_[0].shift[l], f);
  }
  S add_up_neither(int l) {
    const NotLabel<T> a(a_[l]), b(b_[l]);
    if (m_.C < kLanes) {
      const auto counts = (V::iota() < static_cast<Int>(m_.C)) & (V::iota() != a_[l]) & (V::iota() != b_[l]);
      return reduce_one<kLanes>(V::select(counts, load(kept(l)), Real{}), Plus{});
    }
    Total<V> all;
    with_exponentials(l, [&](auto two, auto one) {
      for (int64_t begin = 0; begin < m_.C; begin += kPart) {
        const int64_t count = m_.C - begin < kPart ? m_.C - begin : kPart;
        const Real part = fold_vectors<T>(
            count, Real{},
            [=](Real sum, int64_t k) __attribute__((always_inline)) {
              const int64_t j = begin + k;
              const Pair<T> e = two(j);
              return sum + (V::select(a.first(j) & b.first(j), e.first, Real{}) +
                            V::select(a.second(j) & b.second(j), e.second, Real{}));
            },
            [=](Real sum, int64_t k, int64_t at) __attribute__((always_inline)) {
              const int64_t j = begin + k, from = begin + at;
              return sum + V::select(a.last(j, from) & b.last(j, from), one(j, from), Real{});
            });
        all.add({part, Real{}, Real{}, Real{}});
      }
    });
    return reduce_one<kLanes>(all.all().exp, Plus{});
  }

  // Each label's statistics for itself, relative to the largest of its others.
  template <bool kAllLogits>
  void read_apart(int l) {
    apart_.at[l] = -1;
    for (int k = 0; k < 2; ++k) {
      const int64_t y = k == 0 ? a_[l] : b_[l];
      Statistics<S> one{-V::infinity(), 0, 0, load_one(row(l) + y)};
      for (int64_t j = 0; j < m_.C; ++j)
        if (const S z = load_one(row(l) + j); j != y && z > one.shift) one.shift = z;
      one.shift = finite_or_zero(one.shift);
      double exp = 0, plain = 0;
      for (int64_t j = 0; j < m_.C; ++j) {
        if (j == y) continue;
        const S x = load_one(row(l) + j) - one.shift;
        exp += V::exp_sweep(V::set(x))[0];
        plain += x;
      }
      found_[k].shift[l] = one.shift;
      found_[k].sum_exp[l] = static_cast<S>(exp);
      found_[k].sum[l] = static_cast<S>(plain);
      found_[k].z_y[l] = one.z_y;
    }
  }

  void finish(BinarySums& sums) {
    const auto live = a_.all() >= 0;
    const Real value = V::select(live, product<V>(t_a_, of_[0].value) + product<V>(t_b_, of_[1].value), Real{});
    const Real weight = product<V>(t_a_, of_[0].example_weight) + product<V>(t_b_, of_[1].example_weight);
    for (int l = 0; l < count_; ++l) {
      sums.value += double(value[l]);
      if (live[l]) sums.example_weight += double(weight[l]);
      if (m_.value) static_cast<S*>(m_.value)[first_ + l] = value[l];
    }
    if (!m_.grad) return;
    const S divisor = *static_cast<const S*>(m_.divisor);
    const S* outer = static_cast<const S*>(m_.grad_output);
    for (int l = 0; l < count_; ++l) {
      T* grad = static_cast<T*>(m_.grad) + (first_ + l) * m_.C;
      const S f = (outer ? outer[m_.grad_output_is_scalar ? 0 : first_ + l] : S(1)) / divisor;
      if (!a_.live(l))
        __builtin_memset(grad, 0, m_.C * sizeof(T));
      else if (apart_.at[l])
        write_apart(grad, l, f);
      else
        write_row(block_.outlet.place(l, grad), l, f);
    }
  }
  struct Pull {
    S a, b, g_y;  // of one label, times its amount
  };
  Pull pull(int k, int l) const {
    const S t = k == 0 ? t_a_[l] : t_b_[l];
    if (t == 0) return {0, 0, 0};
    return {t * of_[k].a[l], t * of_[k].b[l], t * of_[k].g_y[l]};
  }
  void write_row(T* grad, int l, S f) {
    const Pull p = pull(0, l), q = pull(1, l);
    const bool one = a_[l] == b_[l];
    const S a = plain((p.a + q.a) * f), b = plain((p.b + q.b) * f);
    const S g_a = (one ? p.g_y : p.g_y + (q.a + q.b)) * f, g_b = (q.g_y + (p.a * e_b_[l] + p.b)) * f;
    if (m_.C < kLanes) {
      const Real g = load(kept(l)) * a + b;
      for (int64_t j = 0; j < m_.C; ++j) store_one(grad + j, j == a_[l] ? g_a : g[j]);
    } else {
      with_exponentials(l, [&](auto two, auto one) __attribute__((always_inline)) {
        IMAE_ISA::write_row(grad, m_.C, a_[l], a, b, g_a, two, one);
      });
    }
    if (!one) store_one(grad + b_[l], g_b);
  }
  // Rounding could turn other NaN into numbers.
  static S plain(S x) { return x == x ? x : std::numeric_limits<S>::quiet_NaN(); }
  void write_apart(T* grad, int l, S f) {
    const T* z = row(l);
    const Pull of[2] = {pull(0, l), pull(1, l)};
    const int64_t label[2] = {a_[l], b_[l]};
    for (int64_t j = 0; j < m_.C; ++j) {
      S sum = 0;
      for (int k = 0; k < (t_b_[l] != 0 ? 2 : 1); ++k)
        sum += j == label[k] ? of[k].g_y
                             : of[k].a * V::exp_sweep(V::set(load_one(z + j) - found_[k].shift[l]))[0] + of[k].b;
      store_one(grad + j, plain(sum * f));
    }
  }

  const Mixed& m_;
  Forward f_;
  int rows_ = 1, count_ = 0;
  int64_t first_ = 0;
  Labels<S> a_, b_, apart_;  // -1 in a_ and b_: the row does not count; in apart_: it was taken again
  Real t_a_, t_b_, e_b_;
  Statistics<Real> found_[2];
  Outcome<V> of_[2];
  Block<T> block_;
};

template <class T>
void mixed(const GroupedMixed& m, int64_t begin, int64_t end) {
  MixedRows<T> rows(m);
  for (int64_t i = begin; i < end; ++i) {
    BinarySums sums;
    const int64_t last = (i + 1) * m.rows_in_part;
    rows.run(i * m.rows_in_part, last < m.N ? last : m.N, sums);
    m.sums[i] = sums;
  }
}

}  // namespace imae::IMAE_ISA
