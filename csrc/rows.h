// What the kernels are called with: raw pointers, sizes and strides; no torch.
#pragma once
#include <cstdint>

#include "prepare.h"

namespace imae {

enum class DType : int { kFloat64, kFloat32, kFloat16, kBFloat16 };  // half types are computed in float

// Where row i of an (outer, C, inner) tensor starts, in elements.
struct View {
  int64_t inner = 1, outer_stride = 0, inner_stride = 0, class_stride = 1;
  IMAE_HD int64_t row(int64_t i) const {
    return inner == 1 ? i * outer_stride : i / inner * outer_stride + i % inner * inner_stride;
  }
};

// S below is the type of computation: double for float64 logits, else float.
struct Rows {
  DType dtype = DType::kFloat32;
  int64_t N = 0, C = 0;
  const void* logits = nullptr;
  View logits_view;
  const void* target = nullptr;  // [N] int64, or int32
  bool target_is_int32 = false;
  int64_t ignore_index = -100;
  const void* class_weight = nullptr;   // [C] S, or null
  const void* sample_weight = nullptr;  // [N] S, or null
  void* grad = nullptr;                 // of the logits' dtype; null: not wanted
  View grad_view;

  IMAE_HD int64_t label(int64_t i) const {
    return target_is_int32 ? static_cast<const int32_t*>(target)[i] : static_cast<const int64_t*>(target)[i];
  }
};

// Statistics, formula and gradient in one pass over the rows: the value, and whatever else is not null.
struct Forward : Rows {
  const Prepared* formula = nullptr;
  void* value = nullptr;           // [N] S, times the row's weights
  void* coefficients = nullptr;    // [N, kCoefficients] S, a, b and g_y times the row's weights; for Backward
  void* p = nullptr;               // [N] S: p_y
  void* example_weight = nullptr;  // [N] S
};

// The statistics sweep without a loss: p and the example weight of the above, and what else is not null.
struct Describe : Forward {
  void *log_p = nullptr, *entropy = nullptr, *sum_p2 = nullptr;  // [N] S
  void* is_top = nullptr;                                        // [N] bool
};

// What losses of other targets than class labels write: binary.h, dense.h, mixed.h. S for each element, or for each
// row.
struct Written {
  const Prepared* formula = nullptr;
  void* value = nullptr;
  void* grad = nullptr;  // of the logits' dtype and shape
  // The gradient is multiplied by grad_output / divisor; without either, as if it were 1, or as the Reduction says.
  const void* grad_output = nullptr;  // likewise, or [1]
  bool grad_output_is_scalar = false;
  const void* divisor = nullptr;  // [1] S
};

// The same of rows of logits, whose tensors are all dense: dense.h, mixed.h.
struct TargetRows : Written {
  DType dtype = DType::kFloat32;
  int64_t N = 0, C = 0;
  const void* logits = nullptr;         // [N, C]
  const void* class_weight = nullptr;   // [C] S, or null
  const void* sample_weight = nullptr;  // [N] S, or null
};

// How the rows become one loss.
struct Reduction {
  enum Divisor : int { kOne, kTargets, kExampleWeights };
  Divisor divide_by = kOne;
  bool mean_gradient = false;  // the gradient is divided by the sum of the targets' weights
  void* loss = nullptr;        // [1] S; null: no reduction
  void* divisor = nullptr;     // [1] S, if wanted
};

// The gradient step alone, from saved coefficients: grad_output / divisor times what Forward would have written. A row
// that does not count is saved with an infinite shift, and stays 0 whatever grad_output is.
struct Backward : Rows {
  const void* coefficients = nullptr;  // [N, kCoefficients] S
  const void* grad_output = nullptr;   // [N] S, or [1]
  bool grad_output_is_scalar = false;
  const void* divisor = nullptr;  // [1] S
};

// A finished gradient is multiplied by a number: rows that do not count stay 0 even if it is infinite or NaN.
struct Scale : Rows {
  int64_t count = 0;         // elements from the gradient's first to its last, all of them its own
  const void* by = nullptr;  // [1] double or float, where the gradient is
  bool by_is_double = false;
};

}  // namespace imae
