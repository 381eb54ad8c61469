// The CPU kernels for one instruction set, in a table. Each file that includes this has included std.h, then chosen the
// target, then defined IMAE_ISA and IMAE_VECTOR_BYTES, which isa.h explains.
#pragma once
#include "../rows.h"
#include "binary.h"
#include "dense.h"
#include "describe.h"
#include "elements.h"
#include "group.h"
#include "instruction_sets.h"
#include "isa.h"
#include "mixed.h"
#include "passes.h"
#include "targets.h"

namespace imae::IMAE_ISA {

// calls f with an element of the rows' type
template <class F>
IMAE_INLINE auto by_type(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat64: return f(double{});
    case DType::kFloat16: return f(Half{});
    case DType::kBFloat16: return f(BFloat16{});
    default: return f(float{});
  }
}

constexpr CpuKernels kernels(const char* name) {
  return {name,
          [](const Rows& r) { return by_type(r.dtype, [&](auto t) { return Plan<decltype(t)>(r).in_place; }); },
          [](const Rows& r) { return by_type(r.dtype, [&](auto t) { return Plan<decltype(t)>(r).count(r); }); },
          [](const Rows& r) {
            const auto count = [&](auto* target) { return count_targets(target, r.N, r.ignore_index, r.C); };
            return r.target_is_int32 ? count(static_cast<const int32_t*>(r.target))
                                     : count(static_cast<const int64_t*>(r.target));
          },
          [](const GroupedForward& f, int64_t begin, int64_t end) {
            by_type(f.dtype, [&](auto t) { forward<decltype(t)>(f, begin, end); });
          },
          [](const Backward& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { backward<decltype(t)>(b, begin, end); });
          },
          [](DType dtype, void* grad, int64_t begin, int64_t end, double by) {
            by_type(dtype, [&](auto t) { scale(static_cast<decltype(t)*>(grad), begin, end, by); });
          },
          [](const Rows& r, int64_t begin, int64_t end, double by) {
            by_type(r.dtype, [&](auto t) { scale_rows<decltype(t)>(r, begin, end, by); });
          },
          [](const GroupedBinary& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { binary<decltype(t)>(b, begin, end); });
          },
          [](const GroupedBinary& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { count_amounts<ScalarOf<decltype(t)>>(b, begin, end); });
          },
          [](const GroupedDense& d, int64_t begin, int64_t end) {
            return by_type(d.dtype, [&](auto t) { return dense<decltype(t)>(d, begin, end); });
          },
          [](const GroupedMixed& m, int64_t begin, int64_t end) {
            by_type(m.dtype, [&](auto t) { mixed<decltype(t)>(m, begin, end); });
          },
          [](const Describe& d, int64_t begin, int64_t end) {
            by_type(d.dtype, [&](auto t) { describe<decltype(t)>(d, begin, end); });
          }};
}

}  // namespace imae::IMAE_ISA
