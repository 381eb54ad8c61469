// The formula step of a CPU: one copy for all element types, for the formulas are most of the code.
#pragma once
#include "../combination.h"
#include "../rows.h"
#include "isa.h"
#include "simd.h"
#include "wide.h"

namespace imae::IMAE_ISA {

// Groups in pairs, since one alone leaves the processor waiting for half of the time.
template <bool kAllLogits, class S>
__attribute__((noinline)) void evaluate_groups(const Forward& f, const Statistics<typename Vector<S>::Real>* found,
                                               Outcome<Vector<S>>* result, int count) {
  using V = Vector<S>;
  using M = Vector<S, Two<typename V::Real>, Two<typename V::Ints>>;
  for (int k = 0; k < count; k += 2) {
    const auto &x = found[k], &y = found[k + 1 < count ? k + 1 : k];
    const Outcome<M> o = evaluate<M, kAllLogits>(
        f.formula->as<S>(), {{x.shift, y.shift}, {x.sum_exp, y.sum_exp}, {x.sum, y.sum}, {x.z_y, y.z_y}},
        static_cast<S>(f.C));
    result[k] = {o.value.first, o.a.first, o.b.first, o.g_y.first, o.example_weight.first, o.p.first};
    if (k + 1 < count)
      result[k + 1] = {o.value.second, o.a.second, o.b.second, o.g_y.second, o.example_weight.second, o.p.second};
  }
}

constexpr int kMany = 32;  // vectors that are evaluated together; a multiple of kAtOnce

// What combine() gives of each of them. b and g_y only where a formula needs all logits; else they are 0 and -a. The
// example weights only where they are wanted; else they stay 0.
template <class S>
struct Many {
  bool wants_example_weights = false;
  using Real = typename Vector<S>::Real;
  Real value[kMany], a[kMany], example_weight[kMany] = {}, b[kMany], g_y[kMany];
  IMAE_INLINE Real pull(const Combination<S>& formula, int k) const {  // minus the slope
    return formula.needs_all_logits ? g_y[k] : -a[k];
  }
};

// at(k): kAtOnce rows, from the k-th on. The formula is a constant, so that of a row only what it uses is computed.
template <FormulaId kFormula, class S, class At>
void add_term(const Combination<S>& combination, int i, int count, const At& at, Many<S>& to) {
  using M = typename At::M;
  using One = typename Vector<S>::Real;
  using Real = typename M::Real;
  constexpr bool kAllLogits = kFormulas[static_cast<int>(kFormula)].needs_all_logits;
  Term<S> t = combination.term[i];
  t.formula = kFormula;
  const S c = t.coefficient;
  const bool first = i == 0, all_logits = combination.needs_all_logits, weights = to.wants_example_weights;
  for (int k = 0; k < count; k += kAtOnce<S>) {
    const Row<M> x = at(k);
    const Outcome<M> o = formula<M, kAllLogits>(x, t, combination.pool);
    const auto add = [=](One* sum, const Real& terms) __attribute__((always_inline)) {
      split(terms, k,
            [=](int j, One term) __attribute__((always_inline)) { sum[j] = first ? c * term : sum[j] + c * term; });
    };
    const auto known = x.p == x.p;
    add(to.value, M::select(known, o.value, x.p));
    add(to.a, M::select(known, o.a, x.p));
    if (weights) add(to.example_weight, o.example_weight);
    if (!all_logits) continue;
    add(to.b, M::select(known, o.b, x.p));
    add(to.g_y, M::select(known, o.g_y, x.p));
  }
}

// Up to kMany rows a lane, a term at a time: which formula it is, is asked outside the loop over them. A count that is
// no multiple of kAtOnce is rounded up: the vectors behind the last one must be there.
template <class S, class At, int... kFormula>
void evaluate_many(const Combination<S>& combination, int count, const At& at, Many<S>& to,
                   std::integer_sequence<int, kFormula...>) {
  using Add = void (*)(const Combination<S>&, int, int, const At&, Many<S>&);
  static constexpr Add kAdd[] = {&add_term<static_cast<FormulaId>(kFormula), S, At>...};
  for (int i = 0; i < combination.term_count; ++i)
    kAdd[static_cast<int>(combination.term[i].formula)](combination, i, count, at, to);
}
template <class S, class At>
IMAE_INLINE void evaluate_many(const Combination<S>& combination, int count, const At& at, Many<S>& to) {
  evaluate_many<S>(combination, count, at, to, std::make_integer_sequence<int, kFormulaCount>{});
}

}  // namespace imae::IMAE_ISA
