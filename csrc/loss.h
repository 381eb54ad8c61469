// Host side: a list of terms becomes the Loss that the kernels evaluate.
#pragma once
#include <cstdint>

#include "formulas.h"

namespace imae {

// The same combination in the two precisions in which kernels compute.
struct PreparedLoss {
  Loss<double> f64;
  Loss<float> f32;
  template <class S>
  const Loss<S>& as() const {
    if constexpr (sizeof(S) == sizeof(double))
      return f64;
    else
      return f32;
  }
};

// terms: for each term its formula, its coefficient and its parameters, one after the other.
// Cached per thread; the reference is good until the thread's next call.
// Throws std::invalid_argument when the list is not well formed or a parameter is out of its range.
const PreparedLoss& prepare(const double* terms, int64_t count);

}  // namespace imae
