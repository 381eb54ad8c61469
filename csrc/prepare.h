// Host side: a list of terms becomes the Combination that the kernels evaluate.
#pragma once
#include <cstdint>

#include "combination.h"

namespace imae {

// The same combination in the two precisions in which kernels compute.
struct Prepared {
  Combination<double> f64;
  Combination<float> f32;
  bool needs_all_logits() const { return f64.needs_all_logits; }
  template <class S>
  const Combination<S>& as() const {
    if constexpr (sizeof(S) == sizeof(double))
      return f64;
    else
      return f32;
  }
};

// terms: for each term its formula, its coefficient and its parameters, one after the other.
// Cached per thread; the reference is good until the thread's next call.
// Throws std::invalid_argument when the list is not well formed, a parameter is out of its range, or the series of the
// terms do not fit into the pool together.
const Prepared& prepare(const double* terms, int64_t count);

}  // namespace imae
