// Binary losses on a CPU: what some elements need is gathered into plain arrays; then vectors run over these.
#pragma once
#include "../binary.h"
#include "amounts.h"
#include "elements.h"
#include "evaluate.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"
#include "wide.h"

namespace imae::IMAE_ISA {

template <class S>
struct Elements {
  static constexpr int64_t kCount = kGathered<S>;
  alignas(64) S t[kCount], pos_weight[kCount], weight[kCount], sample_weight[kCount], factor[kCount];
  alignas(64) S margin[kCount], amount[kCount], value[kCount], grad[kCount];
};

template <class S>
IMAE_INLINE typename Vector<S>::Real weights_at(const S* gathered, const Spread& from, int64_t k) {
  return from.data ? load(gathered + k) : Vector<S>::set(1);
}

// The exponential of the sweeps, as exact as this needs and faster, also for the margin of a logit.
template <class S>
struct BinaryMath : WideVector<S> {
  using typename WideVector<S>::Real;
  static IMAE_INLINE Real exp_nonpositive(Real x) {
    return each_vector(x, [](auto one) __attribute__((always_inline)) { return Vector<S>::exp_sweep(one); });
  }
};
// The others' sum of -log p_j is that of the one other class.
template <class S>
struct AtMargins {
  using M = BinaryMath<S>;
  const S* margin;
  IMAE_INLINE Row<M> operator()(int k) const {
    Row<M> x = row_of_margin<M>(join<typename M::Real>(
        k, [from = margin](int j) __attribute__((always_inline)) { return load(from + j * M::kLanes); }));
    x.rest = x.nlr;
    x.C = 2;
    return x;
  }
};

// Elements [first, first + count), at most kGathered: a multiple of kAtOnce vectors, filled up with elements that do
// not count.
template <class T>
class BinaryPart {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  static constexpr int kLanes = V::kLanes, kStep = kLanes * kAtOnce<S>;

 public:
  BinaryPart(const GroupedBinary& b, int64_t first, int64_t count)
      : b_(b),
        first_(first),
        count_(count),
        vectors_(static_cast<int>((count + kStep - 1) / kStep) * kAtOnce<S>),
        x_(static_cast<const T*>(b.logits) + first) {
    by_amount_type(b, [this](const auto* t) { size_of_t_ = sizeof *t; });
    gather_amounts(e_.t, b, first, count);
    gather_spread(e_.pos_weight, b.pos_weight, first, count);
    gather_spread(e_.weight, b.weight, first, count);
    gather_spread(e_.sample_weight, b.sample_weight, first, count);
    const S* outer = static_cast<const S*>(b.grad_output);
    const S divisor = b.divisor ? *static_cast<const S*>(b.divisor) : S(1);
    by_element_ = b.grad && outer && !b.grad_output_is_scalar;
    factor_ = outer && !by_element_ ? *outer / divisor : 1 / divisor;
    for (int64_t k = 0; by_element_ && k < count; ++k) e_.factor[k] = outer[first + k] / divisor;
    if (count < vectors_ * kLanes) fill_up();
    found_.wants_example_weights = b.wants_example_weights;
  }

  void run(BinarySums& sums) {
    const Combination<S>& formula = b_.formula->as<S>();
    const bool soft = weighed() ? choose_sides<true>(sums) : choose_sides<false>(sums);
    Real value{}, example_weight{};
    if (soft) evaluate_no(formula, example_weight);
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.margin}, found_);
    const T* const grad = static_cast<const T*>(b_.grad);
    const T* const next = static_cast<const T*>(b_.logits) + first_ + kGathered<S>;
    const char* const next_t = static_cast<const char*>(b_.target) + (first_ + kGathered<S>)*size_of_t_;
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      __builtin_prefetch(next + at);
      __builtin_prefetch(next_t + at * size_of_t_);
      const Real amount = load(e_.amount + at);
      Real v = product<V>(amount, found_.value[k]);
      if (soft) v += load(e_.value + at);
      value += v;
      example_weight += product<V>(amount, found_.example_weight[k]);
      if (b_.value) write(static_cast<S*>(b_.value) + first_, at, v);
      if (!grad) continue;
      const Real up = V::select(load(e_.t + at) == Real{}, -amount, amount);
      // an element that is left out has 0 whatever comes from above, a divisor of 0 among it
      Real g = V::select(up == Real{}, Real{}, up * found_.pull(formula, k) * factor(k));
      if (soft) g += load(e_.grad + at);
      write(static_cast<T*>(b_.grad) + first_, at, g);
    }
    sums.value += reduce_one<kLanes>(value, Plus{});
    sums.example_weight += reduce_one<kLanes>(example_weight, Plus{});
  }

 private:
  bool weighed() const { return b_.weight.data || b_.pos_weight.data || b_.sample_weight.data; }
  IMAE_INLINE Real factor(int k) const { return by_element_ ? load(e_.factor + k * kLanes) : V::set(factor_); }
  void fill_up() {
    for (int64_t k = 0; k < vectors_ * kLanes; ++k) {
      if (k < count_) {
        last_[k] = x_[k];
        continue;
      }
      store_one(last_ + k, S(0));
      e_.factor[k] = 0;
      e_.pos_weight[k] = e_.weight[k] = e_.sample_weight[k] = 1;
      e_.t[k] = -1;
    }
    x_ = last_;
  }

  // The margin of each element's one side, and its amount with all weights, 0 where it does not count; t becomes 0
  // there, too. True if there are elements that have two sides.
  template <bool kWeighed>
  bool choose_sides(BinarySums& sums) {
    auto whole = Real{} == Real{}, wrong = Real{} != Real{};
    Real targets{};
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      if (b_.grad) __builtin_prefetch(static_cast<const T*>(b_.grad) + first_ + at, 1);
      const Real x = load(x_ + at), given = load(e_.t + at), zero{};
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
  // The other side of soft targets: its part of each value and gradient.
  __attribute__((noinline)) void evaluate_no(const Combination<S>& formula, Real& example_weight) {
    for (int64_t at = 0; at < vectors_ * kLanes; at += kLanes) store(e_.grad + at, -load(x_ + at));
    evaluate_many<S>(formula, vectors_, AtMargins<S>{e_.grad}, found_);
    for (int k = 0; k < vectors_; ++k) {
      const int64_t at = k * kLanes;
      const Real t = load(e_.t + at), w = weighed() ? load(e_.weight + at) : V::set(1);
      const Real rest = V::select(t == Real{}, Real{}, (S(1) - t) * w);
      example_weight += product<V>(rest, found_.example_weight[k]);
      store(e_.value + at, product<V>(rest, found_.value[k]));
      store(e_.grad + at, V::select(rest == Real{}, Real{}, -rest * found_.pull(formula, k) * factor(k)));
    }
  }
  // A vector of results, as far as there are elements.
  template <class To>
  IMAE_INLINE void write(To* to, int64_t at, Real x) const {
    if (at + kLanes <= count_) return store(to + at, x);
    for (int64_t k = at; k < count_; ++k) store_one(to + k, x[k - at]);
  }

  const GroupedBinary& b_;
  const int64_t first_, count_;
  const int vectors_;
  const T* x_;
  int64_t size_of_t_ = 0;
  bool by_element_ = false;
  S factor_;
  Elements<S> e_;
  Many<S> found_;
  alignas(64) T last_[kGathered<S>];  // logits, where they do not fill all vectors
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
