// The CPU kernels, compiled once for each instruction set.
#pragma once
#include <cstdint>

#include "../binary.h"
#include "../dense.h"
#include "../mixed.h"
#include "../rows.h"

namespace imae {

// A pass over some groups of rows, and what it adds up. A group is the unit of work: its rows depend on C and the
// layout only, so that sums over groups in order do not depend on the number of threads.
struct GroupedForward : Forward {
  double scale = 1;                       // of the gradient
  double* value_sums = nullptr;           // [groups]: of the values
  double* example_weight_sums = nullptr;  // [groups]: of the row's weights times the example weight
};

constexpr int64_t kBinaryGroup = 4096;  // elements

struct BinarySums {
  double value = 0, example_weight = 0, targets = 0;  // of the values, the example weights, the sample weights
  bool wrong = false;                                 // a target is no number from 0 to 1
};

struct GroupedBinary : Binary {
  BinarySums* sums = nullptr;  // [groups], of kBinaryGroup elements
  bool wants_example_weights = false;
};

struct GroupedDense : Dense {
  BinarySums* sums = nullptr;  // [parts]
  int64_t rows_in_part = 1;    // depends on C only, as the order of the sums does
  bool wants_example_weights = false;
};

struct GroupedMixed : Mixed {
  BinarySums* sums = nullptr;  // [parts]
  int64_t rows_in_part = 1;    // likewise
};

struct CpuKernels {
  const char* name;
  bool (*reads_in_place)(const Rows&);  // else the caller must bring the rows to class stride 1
  int64_t (*group_count)(const Rows&);
  int64_t (*count_targets)(const Rows&);  // that are not ignored; -1 if one of them is no class
  void (*forward)(const GroupedForward&, int64_t group_begin, int64_t group_end);
  void (*backward)(const Backward&, int64_t group_begin, int64_t group_end);
  void (*scale)(DType, void* grad, int64_t begin, int64_t end, double by);  // grad *= by, for a dense tensor
  void (*scale_rows)(const Rows&, int64_t begin, int64_t end, double by);   // the same for the rows that count
  void (*binary)(const GroupedBinary&, int64_t group_begin, int64_t group_end);
  void (*count_amounts)(const GroupedBinary&, int64_t group_begin, int64_t group_end);  // sums.targets alone
  bool (*dense)(const GroupedDense&, int64_t part_begin, int64_t part_end);             // false: out of memory
  void (*mixed)(const GroupedMixed&, int64_t part_begin, int64_t part_end);
  void (*describe)(const Describe&, int64_t group_begin, int64_t group_end);
};

// The best that the processor supports, no better than IMAE_EXT_CPU says (baseline, avx2).
const CpuKernels& cpu_kernels();

}  // namespace imae
