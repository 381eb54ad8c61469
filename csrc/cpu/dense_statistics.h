// What is known of rows whose target has an amount of every class, before any formula: a first sweep finds the top
// class, a second one exponentials relative to it and their sums. A row of which the others' sum then comes near the
// end of float's range is read again, relative to the largest of the others.
#pragma once
#include "../dense.h"
#include "elements.h"
#include "evaluate.h"
#include "group.h"
#include "isa.h"
#include "long_sum.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <class T>
class DenseStatistics {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  using Ints = typename V::Ints;
  static constexpr int kLanes = V::kLanes;
  static constexpr int64_t kNear = 16 * 1024;  // bytes of exponentials
  static constexpr int64_t kAtOnce = 64;       // vectors that are added up without more ado

 public:
  explicit DenseStatistics(const Dense& d)
      : d_(d),
        slots_((d.C + kLanes - 1) / kLanes),
        whole_(d.C / kLanes),
        tail_(d.C < kLanes ? 0 : d.C - kLanes),
        new_(d.C < kLanes ? V::iota() < static_cast<Int>(d.C) : V::iota() >= static_cast<Int>(slots_ * kLanes - d.C)),
        share_(1 - static_cast<S>(d.smoothing)),
        to_each_(static_cast<S>(d.smoothing) / static_cast<S>(d.C)) {
    const int64_t fit = kNear / (slots_ * int64_t(sizeof(Real)));
    rows_ = static_cast<int>(fit < 1 ? 1 : fit < kLanes ? fit : kLanes);
    memory_ = static_cast<S*>(std::aligned_alloc(64, (2 * rows_ * slots_ * sizeof(Real) + 63) / 64 * 64));
    e_ = memory_;
    h_ = memory_ + rows_ * slots_ * kLanes;
    f_.formula = d.formula;
    f_.C = d.C;
    of_class_ = static_cast<const S*>(d.class_weight);
    if (!of_class_ || d.C >= kLanes) return;
    for (int j = 0; j < kLanes; ++j) padded_weight_[j] = j < d.C ? of_class_[j] : S(0);
    of_class_ = padded_weight_;
  }
  DenseStatistics(const DenseStatistics&) = delete;
  ~DenseStatistics() { std::free(memory_); }
  bool ready() const { return memory_ != nullptr; }

 protected:
  enum What { kCrossEntropy, kMargins, kAllLogits };  // of what a sweep finds the sums
  // Sums over all classes but the top one: of exponentials; of amounts, and amounts times logits; of logits, and of how
  // many are -infinity. Last, bits of the amounts.
  struct Found {
    Real exp, amounts, along, plain, masked;
    Ints any;
  };
  const Combination<S>& formula() const { return d_.formula->template as<S>(); }

  // Rows that are shorter than a vector are copied, and filled up.
  void point_at_rows() {
    const S* of_row = static_cast<const S*>(d_.sample_weight);
    for (int l = 0; l < kLanes; ++l) {
      weight_[l] = l >= count_ ? S(0) : of_row ? of_row[first_ + l] : S(1);
      live_.at[l] = l < count_ && weight_[l] != 0 ? -1 : 0;
      if (l >= count_) continue;
      z_[l] = static_cast<const T*>(d_.logits) + (first_ + l) * d_.C;
      t_[l] = static_cast<const S*>(d_.target) + (first_ + l) * d_.C;
      if (d_.C >= kLanes) continue;
      for (int j = 0; j < kLanes; ++j) {
        if (j < d_.C)
          padded_z_[l][j] = z_[l][j];
        else
          store_one(&padded_z_[l][j], -V::infinity());
        padded_t_[l][j] = j < d_.C ? t_[l][j] : S(0);
      }
      z_[l] = padded_z_[l];
      t_[l] = padded_t_[l];
    }
  }

  // f(slot, class where it begins, std::true_type if only the lanes of new_ count)
  template <class F>
  IMAE_INLINE void each_slot(int64_t begin, int64_t end, F f) const {
    for (int64_t k = begin; k < (end < whole_ ? end : whole_); ++k) f(k, k * kLanes, std::false_type{});
    if (end > whole_) f(whole_, tail_, std::true_type{});
  }
  bool as_they_are() const { return d_.smoothing == 0 && !of_class_; }  // the amounts
  IMAE_INLINE Real amounts(const S* t, int64_t at) const {
    const Real amount = load(t + at) * share_ + to_each_;
    return of_class_ ? amount * load(of_class_ + at) : amount;
  }
  IMAE_INLINE S amount(int l, int64_t k) const {
    return (t_[l][k] * share_ + to_each_) * (of_class_ ? of_class_[k] : S(1));
  }
  template <bool kTail>
  IMAE_INLINE Real only_new(Real x) const {
    return kTail ? V::select(new_, x, Real{}) : x;
  }
  IMAE_INLINE S* exponentials(int l) const { return e_ + l * slots_ * kLanes; }
  IMAE_INLINE S* own(int l) const { return h_ + l * slots_ * kLanes; }

  // Of each lane the largest logit, and the first class that has it; the row's amounts are fetched meanwhile.
  IMAE_INLINE void find_tops(int l, Real& top, Ints& top_class) const {
    const T* z = z_[l];
    const S* t = t_[l];
    top = V::set(-V::infinity());
    top_class = Ints{};
    each_slot(0, slots_, [&, z, t](int64_t, int64_t at, auto) __attribute__((always_inline)) {
      __builtin_prefetch(t + at);
      const Real x = load(z + at);
      const auto larger = x > top;
      top = V::select(larger, x, top);
      top_class = larger ? V::iota() + static_cast<Int>(at) : top_class;
    });
  }
  // Of each row the largest logit, and the first class that has it; class 0 of a row of NaN.
  void find_tops() {
    Real top[kLanes], each[kLanes];
    Ints top_class[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      top[l] = Real{};
      top_class[l] = Ints{};
      if (live_.at[l]) find_tops(l, top[l], top_class[l]);
      each[l] = top[l];
    }
    top_ = reduce_each<kLanes>(each, Max{});
    for (int l = 0; l < kLanes; ++l)
      top_class[l] = top[l] == top_[l] ? top_class[l] : V::set_int(std::numeric_limits<Int>::max());
    m_ = reduce_each<kLanes>(top_class, Min{});
  }

  // Where no amount is changed, kPlain, they are read as they are.
  template <What kWhat, bool kPlain>
  IMAE_INLINE Found add_up(int l, int64_t begin, int64_t end, S less) const {
    const T* z = z_[l];
    const S* t = t_[l];
    const T* const next = static_cast<const T*>(d_.logits) + (first_ + rows_ + l) * d_.C;            // read soon
    const T* const grad = d_.grad ? static_cast<const T*>(d_.grad) + (first_ + l) * d_.C : nullptr;  // written soon
    S* to = exponentials(l);
    const Real shift = V::set(less);
    const Ints top = V::set_int(m_[l]) - V::iota();
    Found some{};
    each_slot(begin, end,
              [&, z, t, to, top, shift, next, grad](int64_t k, int64_t at, auto tail) __attribute__((always_inline)) {
                constexpr bool kTail = decltype(tail)::value;
                __builtin_prefetch(next + at);
                if (grad) __builtin_prefetch(grad + at, 1);
                const Real x = load(z + at) - shift, e = V::exp_sweep(x);
                const Real amount = only_new<kTail>(kPlain ? load(t + at) : amounts(t, at));
                const auto not_top = [=, m = static_cast<Int>(at)](Real y)
                                         __attribute__((always_inline)) { return V::select(top != m, y, Real{}); };
                store(to + k * kLanes, e);
                some.exp += not_top(only_new<kTail>(e));
                some.any |= V::real_to_bits(amount);
                if constexpr (kWhat == kCrossEntropy) {
                  const Real of_other = not_top(amount);
                  some.amounts += of_other;
                  some.along += V::select(of_other == Real{}, Real{}, of_other * x);
                } else if constexpr (kWhat == kAllLogits) {
                  const auto infinite = x == V::set(-V::infinity());
                  some.plain += not_top(only_new<kTail>(V::select(infinite, Real{}, x)));
                  some.masked += not_top(only_new<kTail>(V::select(infinite, V::set(1), Real{})));
                }
              });
    return some;
  }
  template <What kWhat>
  IMAE_INLINE Found add_up(int l, int64_t begin, int64_t end, S less) const {
    if (as_they_are()) return add_up<kWhat, true>(l, begin, end, less);
    return add_up<kWhat, false>(l, begin, end, less);
  }

  template <What kWhat>
  Found read(int l, S shift) const {
    if (slots_ <= kAtOnce) return add_up<kWhat>(l, 0, slots_, shift);
    LongSum<V> sum[5];
    Found all{};
    for (int64_t begin = 0; begin < slots_; begin += kAtOnce) {
      const Found part = add_up<kWhat>(l, begin, begin + kAtOnce < slots_ ? begin + kAtOnce : slots_, shift);
      const Real* each[] = {&part.exp, &part.amounts, &part.along, &part.plain, &part.masked};
      for (int i = 0; i < 5; ++i) sum[i].add(*each[i]);
      all.any |= part.any;
    }
    return {sum[0].all(), sum[1].all(), sum[2].all(), sum[3].all(), sum[4].all(), all.any};
  }

  // Statistics of all rows, a lane for each.
  template <What kWhat>
  void read_rows() {
    Real exp[kLanes], amounts[kLanes], along[kLanes], plain[kLanes], masked[kLanes];
    find_tops();
    for (int l = 0; l < kLanes; ++l) {
      exp[l] = amounts[l] = along[l] = plain[l] = masked[l] = Real{};
      t_m_[l] = 0;
      if (!live_.at[l]) continue;
      const Found f = read<kWhat>(l, top_[l]);
      if (all_lanes((f.any & std::numeric_limits<Int>::max()) == 0)) live_.at[l] = 0;
      exp[l] = f.exp;
      if constexpr (kWhat == kCrossEntropy) amounts[l] = f.amounts, along[l] = f.along;
      if constexpr (kWhat == kAllLogits) plain[l] = f.plain, masked[l] = f.masked;
      t_m_[l] = amount(l, m_[l]);
    }
    shift_ = top_;
    sum_exp_ = reduce_each<kLanes>(exp, Plus{});
    sum_exp_ = V::select(V::isinf(top_), V::set(std::numeric_limits<S>::quiet_NaN()), sum_exp_);
    of_others_ = along_ = plain_ = masked_ = Real{};
    if constexpr (kWhat == kCrossEntropy)
      of_others_ = reduce_each<kLanes>(amounts, Plus{}), along_ = reduce_each<kLanes>(along, Plus{});
    if constexpr (kWhat == kAllLogits)
      plain_ = reduce_each<kLanes>(plain, Plus{}), masked_ = reduce_each<kLanes>(masked, Plus{});
    const Ints narrow = (sum_exp_ < S(0x1p-80)) & live_.all();
    for (int l = 0; !all_lanes(narrow == 0) && l < count_; ++l)
      if (narrow[l]) read_again<kWhat>(l);
    describe_tops();
  }
  // Relative to the others' largest logit.
  template <What kWhat>
  void read_again(int l) {
    S largest = -V::infinity();
    for (int64_t k = 0; k < d_.C; ++k) {
      const S z = load_one(z_[l] + k);
      if (k != m_[l] && z > largest) largest = z;
    }
    shift_[l] = largest == -V::infinity() ? S(0) : largest;
    const Found f = read<kWhat>(l, shift_[l]);
    sum_exp_[l] = reduce_one<kLanes>(f.exp, Plus{});
    along_[l] = reduce_one<kLanes>(f.along, Plus{});
    plain_[l] = reduce_one<kLanes>(f.plain, Plus{});
  }
  // p_j is e_j times to_p_, -log p_j is log_all_ - (z_j - shift_)
  void describe_tops() {
    const auto none = sum_exp_ == Real{}, by_top = shift_ == top_;
    const Real log_sum = V::log(sum_exp_), u = (top_ - shift_) - log_sum, nan = sum_exp_;
    const auto known = u == u;
    top_class_ = row_of_margin<V>(u);
    for (Real* x : {&top_class_.p, &top_class_.r, &top_class_.nlp, &top_class_.nlr}) *x = V::select(known, *x, nan);
    log_all_ = V::select(by_top, top_class_.nlp, V::select(none, Real{}, log_sum + top_class_.nlr));
    to_p_ = V::select(by_top, top_class_.p, V::select(none, Real{}, top_class_.r / sum_exp_));
  }

  const Dense& d_;
  Forward f_;
  const int64_t slots_, whole_, tail_;  // vectors of a row; those that are full; where the last one begins
  const Ints new_;                      // its lanes that are in no other
  const S share_, to_each_;             // label smoothing
  const S* of_class_;
  int rows_;
  S *memory_, *e_, *h_;  // exponentials; what of a gradient is the class's own

  int64_t first_ = 0;
  int count_ = 0;
  const T* z_[kLanes];
  const S* t_[kLanes];
  alignas(64) T padded_z_[kLanes][kLanes];
  alignas(64) S padded_t_[kLanes][kLanes], padded_weight_[kLanes];
  Labels<S> live_;  // -1 where a row counts
  Real weight_{}, top_{}, shift_, sum_exp_, of_others_, along_, plain_, masked_, t_m_, log_all_, to_p_;
  Ints m_;
  Row<V> top_class_;
};

}  // namespace imae::IMAE_ISA
