// Binary losses on a CPU: some elements are gathered into plain arrays, whatever types and strides they came in; then
// vectors run over these.
#pragma once
#include "../binary.h"
#include "elements.h"
#include "evaluate.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <class S>
constexpr int64_t kGathered = kMany * Vector<S>::kLanes;  // elements; few terms to a sum

template <class S>
struct Elements {
  alignas(64) S x[kGathered<S>], t[kGathered<S>], pos_weight[kGathered<S>], weight[kGathered<S>],
      sample_weight[kGathered<S>], factor[kGathered<S>], margin[kGathered<S>];
};

template <class S>
IMAE_INLINE void gather_spread(S* to, const Spread& from, int64_t first, int64_t count) {
  if (!from.data) return;
  int64_t step = first % from.repeat, at = from.at(first);
  for (int64_t k = 0; k < count; ++k) {
    to[k] = static_cast<const S*>(from.data)[at];
    if (++step < from.repeat) continue;
    step = 0;
    if (++at == from.period) at = 0;
  }
}
template <class S>
IMAE_INLINE typename Vector<S>::Real weights_at(const S* gathered, const Spread& from, int64_t k) {
  return from.data ? load(gathered + k) : Vector<S>::set(1);
}

template <class S>
IMAE_INLINE void gather_amounts(S* to, const Binary& b, int64_t first, int64_t count) {
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int64_t kLanes = V::kLanes;
  const Real one = V::set(1), nan = V::set(std::numeric_limits<S>::quiet_NaN());
  // What as_amount does, of whole vectors; of integers only where ignore_index is one of theirs.
  const auto gather = [=, &b](const auto* from) __attribute__((always_inline)) {
    using L = std::remove_cvref_t<decltype(*from)>;
    using Ls = typename VectorOf<L, kLanes>::type;
    constexpr bool kWhole = std::is_integral_v<L>;
    const auto ignored = static_cast<L>(b.ignore_index);
    const bool any = b.has_ignored && (!kWhole || static_cast<int64_t>(ignored) == b.ignore_index);
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes) {
      Ls label;
      __builtin_memcpy(&label, from + first + k, sizeof label);
      const Real t = __builtin_convertvector(label, Real);
      Real amount = V::select((t >= Real{}) & (t <= one), t, nan);
      if (any) amount = V::select(__builtin_convertvector(label == ignored, typename V::Ints), V::set(-1), amount);
      store(to + k, amount);
    }
    for (; k < count; ++k) to[k] = as_amount<S>(from[first + k], b);
  };
  switch (b.target_type) {
    case AmountType::kUint8: return gather(static_cast<const uint8_t*>(b.target));
    case AmountType::kInt32: return gather(static_cast<const int32_t*>(b.target));
    case AmountType::kInt64: return gather(static_cast<const int64_t*>(b.target));
    case AmountType::kFloat32: return gather(static_cast<const float*>(b.target));
    case AmountType::kFloat64: return gather(static_cast<const double*>(b.target));
  }
}

// The sum of the sample weights of the elements that count, to divide a mean by.
template <class S>
void count_amounts(const GroupedBinary& b, int64_t begin, int64_t end) {
  using V = Vector<S>;
  constexpr int64_t kPart = kGathered<S>;
  alignas(64) S t[kPart], of_sample[kPart];
  for (int64_t i = begin; i < end; ++i) {
    BinarySums sums;
    const int64_t last = (i + 1) * kBinaryGroup < b.count ? (i + 1) * kBinaryGroup : b.count;
    for (int64_t first = i * kBinaryGroup; first < last; first += kPart) {
      const int64_t count = last - first < kPart ? last - first : kPart;
      gather_amounts(t, b, first, count);
      gather_spread(of_sample, b.sample_weight, first, count);
      for (int64_t k = count; k % V::kLanes != 0; ++k) t[k] = -1;
      typename V::Real sum{};
      for (int64_t k = 0; k < count; k += V::kLanes)
        sum += V::select(load(t + k) == S(-1), typename V::Real{}, weights_at(of_sample, b.sample_weight, k));
      sums.targets += reduce_one<V::kLanes>(sum, Plus{});
    }
    b.sums[i] = sums;
  }
}

// The others' sum of -log p_j is that of the one other class.
template <class S>
struct AtMargins {
  using M = Vector<S>;
  const S* margin;
  IMAE_INLINE Row<M> operator()(int k) const {
    Row<M> x = row_of_margin<M>(load(margin + k * M::kLanes));
    x.rest = x.nlr;
    x.C = 2;
    return x;
  }
};

// Elements [first, first + count), at most kGathered: whole vectors, the last one filled up with such as do not count.
template <class T>
class BinaryPart {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  static constexpr int kLanes = V::kLanes;

 public:
  BinaryPart(const GroupedBinary& b, int64_t first, int64_t count)
      : b_(b), first_(first), count_(count), vectors_(static_cast<int>((count + kLanes - 1) / kLanes)) {
    const T* logits = static_cast<const T*>(b.logits) + first;
    const int64_t whole = count / kLanes * kLanes;
    for (int64_t k = 0; k < whole; k += kLanes) store(e_.x + k, load(logits + k));
    for (int64_t k = whole; k < count; ++k) e_.x[k] = load_one(logits + k);
    gather_amounts(e_.t, b, first, count);
    gather_spread(e_.pos_weight, b.pos_weight, first, count);
    gather_spread(e_.weight, b.weight, first, count);
    gather_spread(e_.sample_weight, b.sample_weight, first, count);
    const S* outer = static_cast<const S*>(b.grad_output);
    const S divisor = b.divisor ? *static_cast<const S*>(b.divisor) : S(1);
    by_element_ = b.grad && outer && !b.grad_output_is_scalar;
    factor_ = V::set(outer && !by_element_ ? *outer / divisor : 1 / divisor);
    for (int64_t k = 0; by_element_ && k < count; ++k) e_.factor[k] = outer[first + k] / divisor;
    for (int64_t k = count; k % kLanes != 0; ++k) {
      e_.x[k] = e_.factor[k] = 0;
      e_.pos_weight[k] = e_.weight[k] = e_.sample_weight[k] = 1;
      e_.t[k] = -1;
    }
  }

  void run(BinarySums& sums) {
    const Combination<S>& formula = b_.formula->as<S>();
    const bool soft = choose_sides();
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.margin}, found_);
    for (int k = 0; k < vectors_; ++k) {
      const Real t = amount(k), no_or_all = V::select(t == Real{}, V::set(1), pos_weight(k) * t);
      value_[k] = product<V>(no_or_all, found_.value[k]);
      slope_[k] = product<V>(V::select(t == Real{}, -no_or_all, no_or_all), pull(formula, k));
      example_weight_[k] = product<V>(no_or_all, found_.example_weight[k]);
    }
    if (soft) add_no(formula);
    finish(sums);
  }

 private:
  IMAE_INLINE Real weight(int k) const { return weights_at(e_.weight, b_.weight, k * kLanes) * of_sample(k); }
  IMAE_INLINE Real of_sample(int k) const { return weights_at(e_.sample_weight, b_.sample_weight, k * kLanes); }
  IMAE_INLINE Real pos_weight(int k) const { return weights_at(e_.pos_weight, b_.pos_weight, k * kLanes); }
  IMAE_INLINE auto counts(int k) const { return load(e_.t + k * kLanes) != S(-1); }
  IMAE_INLINE auto live(int k) const { return counts(k) & (weight(k) != Real{}); }
  IMAE_INLINE Real amount(int k) const { return V::select(live(k), load(e_.t + k * kLanes), Real{}); }
  // dL/du
  IMAE_INLINE Real pull(const Combination<S>& formula, int k) const {
    return formula.needs_all_logits ? found_.g_y[k] : -found_.a[k];
  }

  // The margin of each element's one side; true if there are elements that have two.
  bool choose_sides() {
    auto whole = Real{} == Real{};
    for (int k = 0; k < vectors_; ++k) {
      const Real x = load(e_.x + k * kLanes), t = amount(k);
      store(e_.margin + k * kLanes, V::select(t == Real{}, -x, x));
      whole &= (t == Real{}) | (t == S(1));
    }
    return !all_lanes(whole);
  }
  void add_no(const Combination<S>& formula) {
    for (int k = 0; k < vectors_; ++k) store(e_.margin + k * kLanes, -load(e_.x + k * kLanes));
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.margin}, found_);
    for (int k = 0; k < vectors_; ++k) {
      const Real t = amount(k), rest = V::select(t == Real{}, Real{}, S(1) - t);
      value_[k] += product<V>(rest, found_.value[k]);
      slope_[k] -= product<V>(rest, pull(formula, k));
      example_weight_[k] += product<V>(rest, found_.example_weight[k]);
    }
  }
  void finish(BinarySums& sums) {
    Real value{}, example_weight{}, targets{};
    auto wrong = Real{} != Real{};
    for (int k = 0; k < vectors_; ++k) {
      const Real t = load(e_.t + k * kLanes), w = weight(k);
      const auto lives = live(k);
      wrong |= t != t;
      const Real v = V::select(lives, value_[k] * w, Real{});
      value += v;
      example_weight += V::select(lives, example_weight_[k] * w, Real{});
      targets += V::select(counts(k), of_sample(k), Real{});
      const Real factor = by_element_ ? load(e_.factor + k * kLanes) : factor_;
      store(e_.x + k * kLanes, v);
      store(e_.margin + k * kLanes, V::select(lives, slope_[k] * w * factor, Real{}));
    }
    sums.value += reduce_one<kLanes>(value, Plus{});
    sums.example_weight += reduce_one<kLanes>(example_weight, Plus{});
    sums.targets += reduce_one<kLanes>(targets, Plus{});
    sums.wrong |= !all_lanes(wrong == 0);
    if (b_.value) __builtin_memcpy(static_cast<S*>(b_.value) + first_, e_.x, count_ * sizeof(S));
    if (!b_.grad) return;
    T* grad = static_cast<T*>(b_.grad) + first_;
    const int64_t whole = count_ / kLanes * kLanes;
    for (int64_t k = 0; k < whole; k += kLanes) store(grad + k, load(e_.margin + k));
    for (int64_t k = whole; k < count_; ++k) store_one(grad + k, e_.margin[k]);
  }

  const GroupedBinary& b_;
  const int64_t first_, count_;
  const int vectors_;
  bool by_element_ = false;
  Real factor_;
  Elements<S> e_;
  Many<S> found_;
  Real value_[kMany], slope_[kMany], example_weight_[kMany];
};

template <class T>
void binary(const GroupedBinary& b, int64_t begin, int64_t end) {
  constexpr int64_t kPart = kGathered<ScalarOf<T>>;
  for (int64_t i = begin; i < end; ++i) {
    BinarySums sums;
    const int64_t last = (i + 1) * kBinaryGroup < b.count ? (i + 1) * kBinaryGroup : b.count;
    for (int64_t first = i * kBinaryGroup; first < last; first += kPart)
      BinaryPart<T>(b, first, last - first < kPart ? last - first : kPart).run(sums);
    b.sums[i] = sums;
  }
}

}  // namespace imae::IMAE_ISA
