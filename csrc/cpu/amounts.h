// Targets and weights of binary losses, gathered into plain arrays, whatever types and strides they came in.
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

// Whether a target of this type may say that an element is left out: an integer type may not hold ignore_index.
template <class L>
IMAE_INLINE bool has_ignored(const L*, const Binary& b) {
  const bool whole = std::is_integral_v<L>;
  return b.has_ignored && (!whole || static_cast<int64_t>(static_cast<L>(b.ignore_index)) == b.ignore_index);
}
// f(the targets, by their type)
template <class F>
IMAE_INLINE void by_amount_type(const Binary& b, F f) {
  switch (b.target_type) {
    case AmountType::kUint8: return f(static_cast<const uint8_t*>(b.target));
    case AmountType::kInt32: return f(static_cast<const int32_t*>(b.target));
    case AmountType::kInt64: return f(static_cast<const int64_t*>(b.target));
    case AmountType::kFloat32: return f(static_cast<const float*>(b.target));
    case AmountType::kFloat64: return f(static_cast<const double*>(b.target));
  }
}

template <class S>
IMAE_INLINE void gather_amounts(S* to, const Binary& b, int64_t first, int64_t count) {
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int64_t kLanes = V::kLanes;
  const Real one = V::set(1), nan = V::set(std::numeric_limits<S>::quiet_NaN());
  // What as_amount does, of whole vectors.
  by_amount_type(b, [=, &b](const auto* from) __attribute__((always_inline)) {
    using L = std::remove_cvref_t<decltype(*from)>;
    using Ls = typename VectorOf<L, kLanes>::type;
    const auto ignored = static_cast<L>(b.ignore_index);
    const bool any = has_ignored(from, b);
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
  });
}

// Of elements [first, end): how many are not to be left out.
template <class L>
IMAE_INLINE int64_t count_kept(const L* from, const Binary& b, int64_t first, int64_t end) {
  constexpr int64_t kOnes = IMAE_VECTOR_BYTES / sizeof(L);
  constexpr int64_t kSome = 127 * kOnes;  // as many as the lanes of a vector can count
  using Ls = typename VectorOf<L, kOnes>::type;
  const auto ignored = static_cast<L>(b.ignore_index);
  int64_t left_out = 0;
  for (int64_t i = first; i < end;) {
    const int64_t part = end - i < kSome ? end : i + kSome;
    auto sum = Ls{} != Ls{};  // minus the number
    for (; i + kOnes <= part; i += kOnes) {
      Ls t;
      __builtin_memcpy(&t, from + i, sizeof t);
      sum += t == ignored;
    }
    for (int l = 0; l < kOnes; ++l) left_out -= sum[l];
    for (; i < part; ++i) left_out += from[i] == ignored;
  }
  return end - first - left_out;
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
    if (!b.sample_weight.data) {
      by_amount_type(b, [&](const auto* from) {
        sums.targets =
            double(has_ignored(from, b) ? count_kept(from, b, i * kBinaryGroup, last) : last - i * kBinaryGroup);
      });
      b.sums[i] = sums;
      continue;
    }
    for (int64_t first = i * kBinaryGroup; first < last; first += kPart) {
      const int64_t count = last - first < kPart ? last - first : kPart;
      gather_amounts(t, b, first, count);
      gather_spread(of_sample, b.sample_weight, first, count);
      for (int64_t k = count; k % V::kLanes != 0; ++k) t[k] = -1;
      typename V::Real sum{};
      for (int64_t k = 0; k < count; k += V::kLanes)
        sum += V::select(load(t + k) == S(-1), typename V::Real{}, load(of_sample + k));
      sums.targets += reduce_one<V::kLanes>(sum, Plus{});
    }
    b.sums[i] = sums;
  }
}

}  // namespace imae::IMAE_ISA
