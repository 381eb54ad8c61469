// Binary losses on a CPU: some elements are gathered into plain arrays, whatever types and strides they came in; then
// vectors run over these.
#pragma once
#include "../binary.h"
#include "elements.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

constexpr int64_t kGathered = 256;  // elements; whole vectors, and few terms to a sum in float

template <class S>
struct Elements {
  alignas(64) S x[kGathered], t[kGathered], pos_weight[kGathered], weight[kGathered],
      sample_weight[kGathered], factor[kGathered];
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
  const auto gather = [=, &b](const auto* from, int64_t done) {
    for (int64_t k = done; k < count; ++k) to[k] = as_amount<S>(from[first + k], b);
  };
  const auto gather_floats = [=, &b](const S* from) {  // what as_amount does, of whole vectors
    const Real ignored = V::set(static_cast<S>(b.ignore_index)), nan = V::set(std::numeric_limits<S>::quiet_NaN());
    int64_t k = 0;
    for (; k + V::kLanes <= count; k += V::kLanes) {
      const Real t = load(from + first + k);
      const Real amount = V::select((t >= Real{}) & (t <= V::set(1)), t, nan);
      store(to + k, V::select(t == ignored, V::set(-1), amount));
    }
    gather(from, k);
  };
  switch (b.target_type) {
    case AmountType::kUint8: return gather(static_cast<const uint8_t*>(b.target), 0);
    case AmountType::kInt32: return gather(static_cast<const int32_t*>(b.target), 0);
    case AmountType::kInt64: return gather(static_cast<const int64_t*>(b.target), 0);
    case AmountType::kFloat32:
      if constexpr (sizeof(S) == 4) return gather_floats(static_cast<const float*>(b.target));
      return gather(static_cast<const float*>(b.target), 0);
    case AmountType::kFloat64:
      if constexpr (sizeof(S) == 8) return gather_floats(static_cast<const double*>(b.target));
      return gather(static_cast<const double*>(b.target), 0);
  }
}

// One copy for all element types: the formulas are most of the code.
template <class S>
__attribute__((noinline)) void evaluate_elements(const Combination<S>& formula, typename Vector<S>::Real x,
                                                 typename Vector<S>::Real t, typename Vector<S>::Real pos_weight,
                                                 bool soft, BinaryOutcome<Vector<S>>& result) {
  result = evaluate_binary<Vector<S>>(formula, x, t, pos_weight, soft);
}

// Elements [first, first + count), count <= kGathered.
template <class T>
IMAE_INLINE void binary_part(const GroupedBinary& b, int64_t first, int64_t count, BinarySums& sums) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int kLanes = V::kLanes;
  Elements<S> e;
  const T* logits = static_cast<const T*>(b.logits) + first;
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) store(e.x + k, load(logits + k));
  for (int64_t k = whole; k < count; ++k) e.x[k] = load_one(logits + k);
  gather_amounts(e.t, b, first, count);
  gather_spread(e.pos_weight, b.pos_weight, first, count);
  gather_spread(e.weight, b.weight, first, count);
  gather_spread(e.sample_weight, b.sample_weight, first, count);
  const S* outer = static_cast<const S*>(b.grad_output);
  const S divisor = b.divisor ? *static_cast<const S*>(b.divisor) : S(1);
  Real factor = V::set(b.grad && b.grad_output_is_scalar ? *outer / divisor : S(1));
  const bool by_element = b.grad && !b.grad_output_is_scalar;
  if (by_element)
    for (int64_t k = 0; k < count; ++k) e.factor[k] = outer[first + k] / divisor;
  for (int64_t k = count; k % kLanes != 0; ++k) {  // the last vector's other lanes
    e.x[k] = e.factor[k] = 0;
    e.pos_weight[k] = e.weight[k] = e.sample_weight[k] = 1;
    e.t[k] = -1;
  }
  Real value{}, example_weight{}, targets{};
  auto wrong = Real{} != Real{};
  for (int64_t k = 0; k < count; k += kLanes) {
    const Real t = load(e.t + k), of_sample = weights_at(e.sample_weight, b.sample_weight, k);
    const Real w = weights_at(e.weight, b.weight, k) * of_sample;
    const auto counts = t != S(-1), live = counts & (w != Real{});
    wrong |= t != t;
    const Real amount = V::select(live, t, Real{});
    const bool soft = !all_lanes((amount == Real{}) | (amount == S(1)));
    BinaryOutcome<V> o;
    evaluate_elements<S>(b.formula->as<S>(), load(e.x + k), amount, weights_at(e.pos_weight, b.pos_weight, k), soft, o);
    const Real v = V::select(live, o.value * w, Real{});
    value += v;
    example_weight += V::select(live, o.example_weight * w, Real{});
    targets += V::select(counts, of_sample, Real{});
    store(e.x + k, v);  // the logits there have been read
    if (by_element) factor = load(e.factor + k);
    if (b.grad) store(e.t + k, V::select(live, o.slope * w * factor, Real{}));
  }
  for (int l = 0; l < kLanes; ++l) {
    sums.value += value[l];
    sums.example_weight += example_weight[l];
    sums.targets += targets[l];
    sums.wrong |= wrong[l] != 0;
  }
  if (b.value) __builtin_memcpy(static_cast<S*>(b.value) + first, e.x, count * sizeof(S));
  if (!b.grad) return;
  T* grad = static_cast<T*>(b.grad) + first;
  for (int64_t k = 0; k < whole; k += kLanes) store(grad + k, load(e.t + k));
  for (int64_t k = whole; k < count; ++k) store_one(grad + k, e.t[k]);
}

template <class T>
void binary(const GroupedBinary& b, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    BinarySums sums;
    const int64_t last = (i + 1) * kBinaryGroup < b.count ? (i + 1) * kBinaryGroup : b.count;
    for (int64_t first = i * kBinaryGroup; first < last; first += kGathered)
      binary_part<T>(b, first, last - first < kGathered ? last - first : kGathered, sums);
    b.sums[i] = sums;
  }
}

}  // namespace imae::IMAE_ISA
