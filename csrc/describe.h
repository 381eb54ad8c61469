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

// The row's shift is the others' maximum, if more is wanted than log_p.
template <class M>
IMAE_HD Description<M> describe(const Statistics<typename M::Real>& row) {
  const auto zero = M::set(0), one = M::set(1);
  const auto none = row.sum_exp == zero;  // no other class has any mass
  const auto sum = M::select(none, one, row.sum_exp);
  const Row<M> x = row_of_margin<M>(margin<M>(row, M::log(row.sum_exp)));
  const auto known = x.u == x.u;
  const auto or_nan = [=](typename M::Real found) { return M::select(known, found, x.u); };
  const auto of_others = M::log(sum) - row.weighted / sum;
  const auto top = M::select(row.z_y >= row.shift, one, M::select(none, one, zero));
  return {or_nan(-x.nlp), or_nan(product<M>(x.p, x.nlp) + (product<M>(x.r, x.nlr) + product<M>(x.r, of_others))),
          or_nan(x.p * x.p + x.r * x.r * (row.squares / sum / sum)), M::select(known, top, zero)};
}

}  // namespace imae
