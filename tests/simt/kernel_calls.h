// Calls of the CUDA kernels as plain structures: those of kernel_calls.py.
#pragma once
#include <cstdint>

namespace imae_simt {

// How the emulator runs a call.
struct Machine {
  int64_t seed, resident_blocks, most_blocks, shared_per_block;
  int64_t most_cluster;  // blocks of the largest cluster; 0: an older card, which has none
};

struct RowsCall {
  Machine machine;
  int64_t dtype, dim;
  const int64_t *sizes, *logits_strides, *grad_strides;
  const void *logits, *target;
  int64_t target_is_int32, ignore_index;
  const void *class_weight, *sample_weight;
  void* grad;
};

struct ForwardCall {
  RowsCall rows;
  const double* formula;
  int64_t formula_count;
  void *value, *coefficients, *p, *example_weight;
  int64_t divide_by, mean_gradient;
  void *loss, *divisor;
};

struct DescribeCall {
  RowsCall rows;
  const double* formula;
  int64_t formula_count;
  void *p, *example_weight, *log_p, *entropy, *sum_p2, *is_top;
};

struct BackwardCall {
  RowsCall rows;
  const void *coefficients, *grad_output, *divisor;
  int64_t grad_output_is_scalar;
};

struct ScaleCall {
  RowsCall rows;
  int64_t count;
  const void* by;
  int64_t by_is_double;
};

// What the calls of binary, dense and two-label targets begin with.
struct AmountsCall {
  Machine machine;
  int64_t dtype;
  const void* logits;
  const double* formula;
  int64_t formula_count;
  void *value, *grad;
  const void* grad_output;
  int64_t grad_output_is_scalar;
  const void* divide_gradient;
  int64_t divide_by;
  void *loss, *divisor;
};

struct BinaryCall : AmountsCall {
  int64_t count;
  const void* target;
  int64_t target_type, has_ignored, ignore_index;
  const void *weight, *pos_weight, *sample_weight;
  int64_t repeat[3], period[3];  // of the weights, in this order
};

struct DenseCall : AmountsCall {
  int64_t N, C;
  const void *class_weight, *sample_weight, *target;
  double smoothing;
};

struct MixedCall : AmountsCall {
  int64_t N, C;
  const void *class_weight, *sample_weight;
  const int64_t *target, *other;
  int64_t ignore_index;
  const void *lam, *other_lam;
  int64_t lam_is_scalar, other_lam_is_scalar;
};

}  // namespace imae_simt
