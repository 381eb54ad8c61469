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
  // many are -infinity.
  struct Found {
    Real exp{}, amounts{}, along{}, plain{}, masked{};
    Ints top{};
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

  // f(sum, slot, class where it begins, std::true_type if only the lanes of new_ count), which returns the sum: the
  // compiler keeps one that a lambda captures in memory.
  template <class Sum, class F>
  IMAE_INLINE Sum fold_slots(int64_t begin, int64_t end, Sum sum, F f) const {
    const int64_t whole = end < whole_ ? end : whole_;
    for (int64_t k = begin; k < whole; ++k) sum = f(sum, k, k * kLanes, std::false_type{});
    return end > whole_ ? f(sum, whole_, tail_, std::true_type{}) : sum;
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
  struct Top {
    Real logit;
    Ints of_class, next;  // next: the classes of a slot that is read next
  };
  IMAE_INLINE Top find_tops(int l) const {
    const T* z = z_[l];
    const S* t = t_[l];
    return fold_slots(0, slots_, Top{V::set(-V::infinity()), Ints{}, V::iota()},
                      [=](Top top, int64_t, int64_t at, auto tail) __attribute__((always_inline)) {
                        __builtin_prefetch(t + at);
                        const Real x = load(z + at);
                        const auto larger = x > top.logit;
                        const Ints here = decltype(tail)::value ? V::iota() + static_cast<Int>(at) : top.next;
                        return Top{V::select(larger, x, top.logit), larger ? here : top.of_class,
                                   top.next + static_cast<Int>(kLanes)};
                      });
  }
  // Of each row the largest logit, and the first class that has it; class 0 of a row of NaN.
  void find_tops() {
    Real top[kLanes], each[kLanes];
    Ints top_class[kLanes];
    for (int l = 0; l < kLanes; ++l) {
      const Top found = live_.at[l] ? find_tops(l) : Top{};
      each[l] = top[l] = found.logit;
      top_class[l] = found.of_class;
    }
    top_ = reduce_each<kLanes>(each, Max{});
    for (int l = 0; l < kLanes; ++l)
      top_class[l] = top[l] == top_[l] ? top_class[l] : V::set_int(std::numeric_limits<Int>::max());
    m_ = reduce_each<kLanes>(top_class, Min{});
  }

  // Where no amount is changed, kPlain, they are read as they are.
  template <What kWhat, bool kPlain>
  IMAE_INLINE Found add_up(int l, int64_t begin, int64_t end, S shift) const {
    const T* z = z_[l];
    const S* t = t_[l];
    S* to = exponentials(l);
    const T* const next = static_cast<const T*>(d_.logits) + (first_ + rows_ + l) * d_.C;  // read soon
    const T* const grad =                                                                  // written soon
        d_.grad ? static_cast<const T*>(d_.grad) + (first_ + l) * d_.C : reinterpret_cast<const T*>(to);
    const Ints top = V::set_int(m_[l]) - V::iota();
    const Found sums = fold_slots(
        begin, end, Found{Real{}, Real{}, Real{}, Real{}, Real{}, top - static_cast<Int>(begin * kLanes)},
        [=, this](Found f, int64_t k, int64_t at, auto tail) __attribute__((always_inline)) {
          constexpr bool kTail = decltype(tail)::value;
          __builtin_prefetch(next + at);
          __builtin_prefetch(grad + at, 1);
          const Real x = load(z + at) - shift, e = V::exp_sweep(x);
          const Real amount = only_new<kTail>(kPlain ? load(t + at) : amounts(t, at));
          store(to + k * kLanes, e);
          const Ints counts = kTail ? (top != static_cast<Int>(at)) & new_ : f.top != 0;
          const auto add = [=](Real sum, Real term)
                               __attribute__((always_inline)) { return V::select(counts, sum + term, sum); };
          const auto infinite = x == V::set(-V::infinity());
          return Found{
              add(f.exp, e),
              add(f.amounts, amount),
              kWhat == kCrossEntropy ? V::select(counts & (amount != Real{}), f.along + amount * x, f.along) : Real{},
              kWhat == kAllLogits ? add(f.plain, V::select(infinite, Real{}, x)) : Real{},
              kWhat == kAllLogits ? add(f.masked, V::select(infinite, V::set(1), Real{})) : Real{},
              f.top - static_cast<Int>(kLanes)};
        });
    return sums;
  }
  template <What kWhat>
  IMAE_INLINE Found add_up(int l, int64_t begin, int64_t end, S less) const {
    if (as_they_are()) return add_up<kWhat, true>(l, begin, end, less);
    return add_up<kWhat, false>(l, begin, end, less);
  }

  template <What kWhat>
  IMAE_INLINE Found read(int l, S shift) const {
    return slots_ <= kAtOnce ? add_up<kWhat>(l, 0, slots_, shift) : read_long<kWhat>(l, shift);
  }
  template <What kWhat>
  __attribute__((noinline)) Found read_long(int l, S shift) const {
    LongSum<V> sum[5];
    for (int64_t begin = 0; begin < slots_; begin += kAtOnce) {
      const Found part = add_up<kWhat>(l, begin, begin + kAtOnce < slots_ ? begin + kAtOnce : slots_, shift);
      const Real* each[] = {&part.exp, &part.amounts, &part.along, &part.plain, &part.masked};
      for (int i = 0; i < 5; ++i) sum[i].add(*each[i]);
    }
    return {sum[0].all(), sum[1].all(), sum[2].all(), sum[3].all(), sum[4].all()};
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
      exp[l] = f.exp;
      amounts[l] = f.amounts;
      if constexpr (kWhat == kCrossEntropy) along[l] = f.along;
      if constexpr (kWhat == kAllLogits) plain[l] = f.plain, masked[l] = f.masked;
      t_m_[l] = amount(l, m_[l]);
    }
    shift_ = top_;
    sum_exp_ = reduce_each<kLanes>(exp, Plus{});
    sum_exp_ = V::select(V::isinf(top_), V::set(std::numeric_limits<S>::quiet_NaN()), sum_exp_);
    of_others_ = reduce_each<kLanes>(amounts, Plus{});
    along_ = plain_ = masked_ = Real{};
    if constexpr (kWhat == kCrossEntropy) along_ = reduce_each<kLanes>(along, Plus{});
    if constexpr (kWhat == kAllLogits)
      plain_ = reduce_each<kLanes>(plain, Plus{}), masked_ = reduce_each<kLanes>(masked, Plus{});
    const Ints nothing = (of_others_ == Real{}) & (t_m_ == Real{}) & live_.all();  // or amounts that cancel
    for (int l = 0; !all_lanes(nothing == 0) && l < count_; ++l)
      if (nothing[l] && !has_amounts(l)) live_.at[l] = 0;
    const Ints narrow = (sum_exp_ < S(0x1p-80)) & live_.all();
    for (int l = 0; !all_lanes(narrow == 0) && l < count_; ++l)
      if (narrow[l]) read_again<kWhat>(l);
    describe_tops();
  }
  bool has_amounts(int l) const {
    for (int64_t k = 0; k < d_.C; ++k)
      if (amount(l, k) != 0) return true;
    return false;
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
