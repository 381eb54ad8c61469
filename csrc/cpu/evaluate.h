// The formula step of a CPU: one copy for all element types, for the formulas are most of the code.
#pragma once
#include "../combination.h"
#include "../rows.h"
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <bool kAllLogits, class S>
__attribute__((noinline)) void evaluate_group(const Forward& f, const Statistics<typename Vector<S>::Real>& found,
                                              Outcome<Vector<S>>& result) {
  result = evaluate<Vector<S>, kAllLogits>(f.formula->as<S>(), found, static_cast<S>(f.C));
}

constexpr int kMany = 32;  // vectors that are evaluated together

// What combine() gives of each of them. b and g_y only where a formula needs all logits; else they are 0 and -a.
template <class S>
struct Many {
  using Real = typename Vector<S>::Real;
  Real value[kMany], a[kMany], example_weight[kMany], b[kMany], g_y[kMany];
  IMAE_INLINE Real pull(const Combination<S>& formula, int k) const {  // minus the slope
    return formula.needs_all_logits ? g_y[k] : -a[k];
  }
};

// at(k): the k-th Row. The formula is a constant, so that of a row only what it uses is computed.
template <FormulaId kFormula, class S, class At>
void add_term(const Combination<S>& combination, int i, int count, const At& at, Many<S>& to) {
  using M = typename At::M;
  using Real = typename Vector<S>::Real;
  constexpr bool kAllLogits = kFormulas[static_cast<int>(kFormula)].needs_all_logits;
  Term<S> t = combination.term[i];
  t.formula = kFormula;
  const S c = t.coefficient;
  const bool first = i == 0, all_logits = combination.needs_all_logits;
  for (int k = 0; k < count; ++k) {
    const Row<M> x = at(k);
    const Outcome<M> o = formula<M, kAllLogits>(x, t, combination.pool);
    const auto add = [=](Real& sum, Real term)
                         __attribute__((always_inline)) { sum = first ? c * term : sum + c * term; };
    const auto known = x.p == x.p;
    add(to.value[k], M::select(known, o.value, x.p));
    add(to.a[k], M::select(known, o.a, x.p));
    add(to.example_weight[k], o.example_weight);
    if (!all_logits) continue;
    add(to.b[k], M::select(known, o.b, x.p));
    add(to.g_y[k], M::select(known, o.g_y, x.p));
  }
}

// Up to kMany rows a lane, a term at a time: which formula it is, is asked outside the loop over them.
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
