// The formula step of a CPU: one copy for all element types, for the formulas are most of the code.
#pragma once
#include "../formulas.h"
#include "../rows.h"
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <bool kAllLogits, class S>
__attribute__((noinline)) void evaluate_group(const Forward& f, const Statistics<typename Vector<S>::Real>& found,
                                              Outcome<Vector<S>>& result) {
  result = evaluate<Vector<S>, kAllLogits>(f.formula->as<S>(), found, static_cast<S>(f.C));
}

}  // namespace imae::IMAE_ISA
