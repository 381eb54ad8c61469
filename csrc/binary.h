// Binary and multi-label losses: one logit x for each yes or no, t in [0, 1] what is wanted of it.
//
// The softmax over (0, x) is the sigmoid of x, so each formula means here what it means for two classes: with L the
// formula as a function of the margin, the loss is  pos_weight t L(x) + (1 - t) L(-x).  Elements have nothing to do
// with one another: no sweep, and both backends walk over them in their order in memory.
#pragma once
#include <cstdint>

#include "combination.h"
#include "prepare.h"
#include "rows.h"

namespace imae {

// A tensor that broadcasts to the logits, without its repetitions: element i of the logits has entry at(i).
struct Spread {
  const void* data = nullptr;  // S; null: 1 for every element
  int64_t repeat = 1, period = 1;
  IMAE_HD int64_t at(int64_t i) const { return i / repeat % period; }
};

enum class AmountType : int { kUint8, kInt32, kInt64, kFloat32, kFloat64 };

struct Binary : Written {
  DType dtype = DType::kFloat32;
  int64_t count = 0;
  const void* logits = nullptr;  // [count], as the others: dense
  const void* target = nullptr;
  AmountType target_type = AmountType::kFloat32;
  bool has_ignored = true;  // a target of bool has no room for another value
  int64_t ignore_index = -100;
  Spread weight, pos_weight, sample_weight;
};

// t; -1 where the element is left out, NaN where it is no number from 0 to 1.
template <class S, class L>
IMAE_HD S as_amount(L t, const Binary& b) {
  const bool is_ignored = t == static_cast<L>(b.ignore_index);
  const bool whole = static_cast<L>(0.5) == L(0);  // an integer type, which may not be able to hold ignore_index
  if (b.has_ignored && is_ignored && (!whole || static_cast<int64_t>(t) == b.ignore_index)) return S(-1);
  const auto amount = static_cast<S>(t);
  return amount >= 0 && amount <= 1 ? amount : static_cast<S>(__builtin_nan(""));
}

template <class M>
struct BinaryOutcome {
  typename M::Real value, slope, example_weight;  // slope: dL/dx
};

// The formula at the margin u: two classes, of which the other has logit 0. There is none for a perfect fit.
template <class M>
IMAE_HD Outcome<M> at_margin(const Combination<typename M::Scalar>& formula, typename M::Real u) {
  const auto zero = M::set(0);
  const auto fit = u == M::set(M::infinity());
  return evaluate<M>(formula, {zero, M::select(fit, zero, M::set(1)), zero, M::select(fit, zero, u)}, 2);
}

// soft: whether t may be neither 0 nor 1; else there is one side to evaluate.
template <class M>
IMAE_HD BinaryOutcome<M> evaluate_binary(const Combination<typename M::Scalar>& formula, typename M::Real x,
                                         typename M::Real t, typename M::Real pos_weight, bool soft) {
  const auto zero = M::set(0), one = M::set(1);
  const auto no = t == zero;
  const auto amount = M::select(no, one, pos_weight * t);
  const Outcome<M> o = at_margin<M>(formula, M::select(no, -x, x));
  BinaryOutcome<M> sum{product<M>(amount, o.value), product<M>(M::select(no, -amount, amount), o.g_y),
                       product<M>(amount, o.example_weight)};
  if (soft) {
    const auto rest = M::select(no, zero, one - t);
    const Outcome<M> other = at_margin<M>(formula, -x);
    sum.value = sum.value + product<M>(rest, other.value);
    sum.slope = sum.slope - product<M>(rest, other.g_y);
    sum.example_weight = sum.example_weight + product<M>(rest, other.example_weight);
  }
  return sum;
}

}  // namespace imae
