// Two labels a row, each by its amount: t_a L_a + t_b L_b, L_k the formula for label k.
//
// With the statistics of the classes that are neither a nor b, and each label among the others of the other one, the
// formula is evaluated twice, and with a_k, b_k, g_k what it gives for label k (Outcome)
//   dL/dz_j = (t_a a_a + t_b a_b) exp(z_j - shift) + t_a b_a + t_b b_b
//   dL/dz_a = t_a g_a + t_b (a_b exp(z_a - shift) + b_b), and likewise b.
// No split by the top class is needed, for nothing is subtracted. Where a is b, it is one label of both amounts.
#pragma once
#include <cstdint>

#include "prepare.h"
#include "rows.h"

namespace imae {

struct Mixed : TargetRows {
  const int64_t *target = nullptr, *other = nullptr;  // [N]
  int64_t ignore_index = -100;                        // of target: the row does not count; of other: its part
  const void *lam = nullptr, *other_lam = nullptr;    // [N] S, or [1]; other_lam null: 1 - lam
  bool lam_is_scalar = false, other_lam_is_scalar = false;
};

}  // namespace imae
