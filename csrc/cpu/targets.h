// The labels, looked at before any kernel runs.
#pragma once
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

// Those that are not ignored; -1 if one of them is no class.
template <class Label>
int64_t count_targets(const Label* target, int64_t N, int64_t ignore_index, int64_t C) {
  constexpr int64_t kLanes = IMAE_VECTOR_BYTES / sizeof(Label);
  using Labels = typename VectorOf<Label, kLanes>::type;
  const bool none_ignored = ignore_index != static_cast<Label>(ignore_index);
  const auto ignored = static_cast<Label>(ignore_index);
  Labels kept{}, wrong{};  // minus the number; -1
  int64_t i = 0, count = 0;
  for (; i + kLanes <= N; i += kLanes) {
    Labels y;
    __builtin_memcpy(&y, target + i, sizeof y);
    const auto keep = none_ignored ? y == y : y != ignored;
    kept += keep;
    wrong |= keep & ((y < 0) | (C <= std::numeric_limits<Label>::max() ? y >= static_cast<Label>(C) : y != y));
  }
  for (int l = 0; l < kLanes; ++l) {
    if (wrong[l]) return -1;
    count -= kept[l];
  }
  for (; i < N; ++i) {
    if (target[i] == ignore_index) continue;
    if (target[i] < 0 || target[i] >= C) return -1;
    ++count;
  }
  return count;
}

}  // namespace imae::IMAE_ISA
