// What else can be said of a row: log p, the entropy and the sum of squares of its softmax, whether the label is on
// top.
//
// All from sums over the other classes, relative to their maximum, joined with the label at the end. Nothing cancels:
// the entropy as logsumexp less sum_j p_j z_j would be several nats off for float32 logits near 1e4.
#pragma once
#include "arithmetic.h"
#include "steps.h"

namespace imae {

template <class M>
struct Description {
  using R = typename M::Real;
  R log_p, entropy, sum_p2;
  R is_top;  // 1 or 0; a tie counts
};

// kSums: what the sweep made of others, with their maximum as the shift; what needs another sum is 0.
template <class M, int kSums>
IMAE_HD Description<M> describe(const Statistics<typename M::Real>& row) {
  const auto zero = M::set(0), one = M::set(1);
  const auto none = row.sum_exp == zero;  // no other class has any mass
  const auto log_sum = M::log(row.sum_exp);
  const Row<M> x = row_of_margin<M>(margin<M>(row, log_sum));
  const auto known = x.u == x.u;
  Description<M> d{M::select(known, -x.nlp, x.u), zero, zero, zero};
  if constexpr (kSums & kWeighted) {
    const auto of_others = M::select(none, zero, log_sum - row.weighted / row.sum_exp);
    const auto entropy = product<M>(x.p, x.nlp) + (product<M>(x.r, x.nlr) + product<M>(x.r, of_others));
    d.entropy = M::select(known, entropy, x.u);
  }
  if constexpr (kSums & kSquares) {
    const auto of_others = M::select(none, zero, row.squares / row.sum_exp / row.sum_exp);
    d.sum_p2 = M::select(known, x.p * x.p + x.r * x.r * of_others, x.u);
  }
  if constexpr (kSums & kFromMax) {
    const auto top = M::select(row.z_y >= row.shift, one, M::select(none, one, zero));
    d.is_top = M::select(known, top, zero);
  }
  return d;
}

}  // namespace imae
