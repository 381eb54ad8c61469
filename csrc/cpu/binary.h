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
  static constexpr int64_t kCount = kGathered<S>;
  alignas(64) S x[kCount], t[kCount], pos_weight[kCount], weight[kCount], sample_weight[kCount], factor[kCount];
  alignas(64) S margin[kCount], amount[kCount], value[kCount], grad[kCount];
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
    factor_ = outer && !by_element_ ? *outer / divisor : 1 / divisor;
    for (int64_t k = 0; by_element_ && k < count; ++k) e_.factor[k] = outer[first + k] / divisor;
    for (int64_t k = count; k % kLanes != 0; ++k) {
      e_.x[k] = e_.factor[k] = 0;
      e_.pos_weight[k] = e_.weight[k] = e_.sample_weight[k] = 1;
      e_.t[k] = -1;
    }
  }

  void run(BinarySums& sums) {
    const Combination<S>& formula = b_.formula->as<S>();
    const bool soft = weighed() ? choose_sides<true>(sums) : choose_sides<false>(sums);
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.margin}, found_);
    Real value{}, example_weight{};
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      const Real amount = load(e_.amount + at), v = product<V>(amount, found_.value[k]);
      value += v;
      example_weight += product<V>(amount, found_.example_weight[k]);
      if (b_.value) store(e_.value + at, v);
      const Real up = V::select(load(e_.t + at) == Real{}, -amount, amount);
      // an element that is left out has 0 whatever comes from above, a divisor of 0 among it
      if (b_.grad) store(e_.grad + at, V::select(up == Real{}, Real{}, up * found_.pull(formula, k) * factor(k)));
    }
    if (soft) add_no(formula, value, example_weight);
    sums.value += reduce_one<kLanes>(value, Plus{});
    sums.example_weight += reduce_one<kLanes>(example_weight, Plus{});
    if (b_.value) __builtin_memcpy(static_cast<S*>(b_.value) + first_, e_.value, count_ * sizeof(S));
    if (b_.grad) write(static_cast<T*>(b_.grad) + first_);
  }

 private:
  bool weighed() const { return b_.weight.data || b_.pos_weight.data || b_.sample_weight.data; }
  IMAE_INLINE Real factor(int k) const { return by_element_ ? load(e_.factor + k * kLanes) : V::set(factor_); }

  // The margin of each element's one side, and its amount with all weights, 0 where it does not count; t becomes 0
  // there, too. True if there are elements that have two sides.
  template <bool kWeighed>
  bool choose_sides(BinarySums& sums) {
    auto whole = Real{} == Real{}, wrong = Real{} != Real{};
    Real targets{};
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      const Real x = load(e_.x + at), given = load(e_.t + at), zero{};
      const auto counts = given != S(-1);
      Real of_sample = V::set(1), w = of_sample, pos_weight = w;
      if constexpr (kWeighed) {
        of_sample = weights_at(e_.sample_weight, b_.sample_weight, at);
        w = weights_at(e_.weight, b_.weight, at) * of_sample;
        pos_weight = weights_at(e_.pos_weight, b_.pos_weight, at);
      }
      w = V::select(counts, w, zero);
      const Real t = V::select(w != zero, given, zero);
      const auto no = t == zero;
      store(e_.t + at, t);
      store(e_.margin + at, V::select(no, -x, x));
      store(e_.amount + at, V::select(no, w, kWeighed ? pos_weight * t * w : t));
      if constexpr (kWeighed) store(e_.weight + at, w);
      targets += V::select(counts, of_sample, zero);
      wrong |= given != given;
      whole &= no | (t == S(1));
    }
    sums.targets += reduce_one<kLanes>(targets, Plus{});
    sums.wrong |= !all_lanes(wrong == 0);
    return !all_lanes(whole);
  }
  // The other side of soft targets.
  __attribute__((noinline)) void add_no(const Combination<S>& formula, Real& value, Real& example_weight) {
    for (int64_t k = 0; k < vectors_ * kLanes; ++k) e_.x[k] = -e_.x[k];
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.x}, found_);
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      const Real t = load(e_.t + at), w = weighed() ? load(e_.weight + at) : V::set(1);
      const Real rest = V::select(t == Real{}, Real{}, (S(1) - t) * w), v = product<V>(rest, found_.value[k]);
      value += v;
      example_weight += product<V>(rest, found_.example_weight[k]);
      if (b_.value) store(e_.value + at, load(e_.value + at) + v);
      const Real more = V::select(rest == Real{}, Real{}, rest * found_.pull(formula, k) * factor(k));
      if (b_.grad) store(e_.grad + at, load(e_.grad + at) - more);
    }
  }
  void write(T* grad) const {
    const int64_t whole = count_ / kLanes * kLanes;
    for (int64_t k = 0; k < whole; k += kLanes) store(grad + k, load(e_.grad + k));
    for (int64_t k = whole; k < count_; ++k) store_one(grad + k, e_.grad[k]);
  }

  const GroupedBinary& b_;
  const int64_t first_, count_;
  const int vectors_;
  bool by_element_ = false;
  S factor_;
  Elements<S> e_;
  Many<S> found_;
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
