// What else can be said of the rows, from the statistics sweep of a CPU: no gradient, and no sums but those wanted.
#pragma once
#include "../describe.h"

#include "../rows.h"
#include "evaluate.h"
#include "group.h"
#include "isa.h"
#include "passes.h"
#include "simd.h"
#include "walk.h"

namespace imae::IMAE_ISA {

template <int kSums, class S>
__attribute__((noinline)) void describe_group(const Statistics<typename Vector<S>::Real>& found,
                                              Description<Vector<S>>& result) {
  result = describe<Vector<S>, kSums>(found);
}

template <int kSums, class T>
void finish_description(const Describe& d, const Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Group g = block.group[k];
  const auto live = block.labels[k].all() >= 0;
  const auto put = [=](void* to, Real x)
                       __attribute__((always_inline)) { put_rows<S>(to, g, V::select(live, x, Real{})); };
  Description<V> found;
  describe_group<kSums, S>(block.statistics[k], found);
  put(d.p, block.outcome[k].p);
  put(d.example_weight, block.outcome[k].example_weight);
  put(d.log_p, found.log_p);
  put(d.entropy, found.entropy);
  put(d.sum_p2, found.sum_p2);
  for (int l = g.begin; d.is_top && l < g.end; ++l)
    static_cast<bool*>(d.is_top)[g.first + l] = live[l] && found.is_top[l] != 0;
}

template <int kSums, bool kAlong, class T>
void describe_rows(const Describe& d, const Plan<T>& plan, int64_t begin, int64_t end) {
  Block<T> block;
  for (int64_t first = begin; first < end; first += block.count) {
    start_block(d, plan, first, end, block);
    if constexpr (kAlong)
      read_along<kSums>(d, plan, block);
    else
      read_in_lanes<kSums>(d, plan, block);
    evaluate_groups<false, ScalarOf<T>>(d, block.statistics, block.outcome, block.count);
    for (int k = 0; k < block.count; ++k) finish_description<kSums>(d, block, k);
  }
}

// Only what is wanted is added up; of few classes both sums or none, which costs less than more kernels.
template <class T>
void describe(const Describe& d, int64_t begin, int64_t end) {
  const Plan<T> plan(d);
  const bool any = d.entropy || d.sum_p2;
  if (plan.path != Path::kAlong && any)
    describe_rows<kFromMax | kWeighted | kSquares, false>(d, plan, begin, end);
  else if (plan.path != Path::kAlong)
    describe_rows<kFromMax, false>(d, plan, begin, end);
  else if (d.entropy && d.sum_p2)
    describe_rows<kFromMax | kWeighted | kSquares, true>(d, plan, begin, end);
  else if (any)
    d.entropy ? describe_rows<kFromMax | kWeighted, true>(d, plan, begin, end)
              : describe_rows<kFromMax | kSquares, true>(d, plan, begin, end);
  else if (d.is_top)
    describe_rows<kFromMax, true>(d, plan, begin, end);
  else
    describe_rows<0, true>(d, plan, begin, end);
}

}  // namespace imae::IMAE_ISA
