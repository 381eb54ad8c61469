// A target that has an amount of every class: the loss of a row is sum_k t_k L_k, L_k the formula for label k.
//
// Everything is relative to the others of the row's TOP class m, not of a label: lse_o, u_m = z_m - lse_o,
// r_m = sigmoid(-u_m), and for every other class q_j = exp(z_j - lse_o) and p_j = q_j r_m <= 1/2, so that 1 - p_j has
// no cancellation. With a_k, b_k, g_k what the formula gives for label k (Outcome; a_k times q^(k), the softmax without
// k)
//   dL/dz_j = p_j (A - t_j a_j / r_j) + q_j t_m a_m + B - t_j b_j + t_j g_j      A = sum over k != m of t_k a_k / r_k
//   dL/dz_m = p_m A + B - t_m b_m + t_m g_m                                      B = sum over all k of t_k b_k
// The plain p_j sum_k t_k a_k / r_k loses all digits for IMAE, whose a / r reaches 1 / eps at a fitted top class.
// Formulas are evaluated only where t_k is not 0.
#pragma once
#include <cstdint>

#include "prepare.h"
#include "rows.h"

namespace imae {

struct Dense : TargetRows {
  const void* target = nullptr;  // [N, C] S
  double smoothing = 0;          // e: the amounts are (1 - e) t + e / C, times the class weights
};

}  // namespace imae
