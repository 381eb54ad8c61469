// The kernels' interface: raw pointers, sizes and strides; no torch.
#pragma once
#include <cstdint>

#include "loss.h"

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
  const void* class_weight = nullptr;  // [C] S
  void* grad = nullptr;                // of the logits' dtype; null: not wanted
  View grad_view;

  IMAE_HD int64_t label(int64_t i) const {
    return target_is_int32 ? static_cast<const int32_t*>(target)[i] : static_cast<const int64_t*>(target)[i];
  }
  // Whether a row with this label is left out: value and gradient are 0, whatever its logits and the upstream gradient.
  template <class S>
  IMAE_HD bool left_out(int64_t y) const {
    if (y == ignore_index) return true;
    return class_weight && y >= 0 && y < C && static_cast<const S*>(class_weight)[y] == 0;
  }
};

// One pass over the rows: loss, and whatever else is not null.
struct Forward : Rows {
  const PreparedLoss* loss = nullptr;
  double scale = 1;              // of the gradient; CPU
  void* value = nullptr;         // [N] S, times the class weight
  void* coefficients = nullptr;  // [N, 4] S: max, a, b, g_y, times the class weight; for Backward
  void* p = nullptr;             // [N] S: p_y
  void* weight = nullptr;        // [N] S: the example weight
  double* value_sums = nullptr;  // [groups]; CPU: of the value, of the class weight times the example weight
  double* weight_sums = nullptr;
};

// The gradient from saved coefficients: grad_output times what Forward would have written, over the divisor.
struct Backward : Rows {
  const void* coefficients = nullptr;  // [N, 4] S
  const void* grad_output = nullptr;   // [N] S, or [1]
  bool grad_output_is_scalar = false;
  const void* divisor = nullptr;  // [1] S
};

// ---- CPU ------------------------------------------------------------------------------------------------------------

// One instruction set's kernels. A group is the unit of work: its rows depend on C and the layout only, so that sums
// over groups in order do not depend on the number of threads.
struct CpuKernels {
  const char* name;
  bool (*reads_in_place)(const Rows&);  // else the caller must bring the rows to class stride 1
  int64_t (*group_count)(const Rows&);
  int64_t (*count_targets)(const Rows&);  // that are not ignored; -1 if one of them is no class
  void (*forward)(const Forward&, int64_t group_begin, int64_t group_end);
  void (*backward)(const Backward&, int64_t group_begin, int64_t group_end);
  void (*scale)(DType, void* grad, int64_t begin, int64_t end, double by);  // grad *= by, for a dense tensor
};

// The best that the processor supports, no better than IMAE_EXT_CPU says (baseline, avx2).
const CpuKernels& cpu_kernels();

// ---- CUDA -----------------------------------------------------------------------------------------------------------

// Of a block's or the whole grid's rows: sums of the value, of class weight times example weight, of class weights.
struct Totals {
  double value, weight, targets;
};

constexpr int kMaxBlocks = 2048;      // of a forward kernel
constexpr int kMaxCountBlocks = 256;  // of the kernel that counts the targets

// Device memory that one call needs for itself, uninitialised. It is allocated for each call, so that calls on other
// streams and replays of a captured graph never share it, and the ticket is zeroed by an earlier launch on the stream.
struct Workspace {
  Totals part[kMaxBlocks];
  double counts[kMaxCountBlocks];
  unsigned ticket;
};

// How the rows become one loss, on the device.
struct Reduction {
  enum Divisor : int { kOne, kTargets, kWeights };
  Divisor divide_by = kOne;
  bool mean_gradient = false;      // the gradient is divided by the sum of the targets' weights
  void* loss = nullptr;            // [1] S; null: no reduction
  void* divisor = nullptr;         // [1] S, if wanted
  Workspace* workspace = nullptr;  // if loss or mean_gradient
};

// These launch on `stream` (a cudaStream_t) of the current device and return a cudaError_t.
bool cuda_reads_in_place(const Rows&);  // else the caller must bring the rows to class stride 1
int cuda_forward(const Forward&, const Reduction&, void* stream);
int cuda_backward(const Backward&, void* stream);
int cuda_scale(const Rows&, const void* by, bool by_is_double, void* stream);
const char* cuda_error(int);

}  // namespace imae
