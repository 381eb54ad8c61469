// What the files of the element types define. Each is compiled on its own, for its kernels take a while.
#pragma once
#include "../kernels.h"

namespace imae {

struct CudaKernels {
  int (*forward)(const Forward&, const Reduction&, void* stream);
  int (*backward)(const Backward&, void* stream);
  int (*scale)(const Rows&, const void* by, bool by_is_double, void* stream);
};

extern const CudaKernels cuda_float64, cuda_float32, cuda_float16, cuda_bfloat16;

}  // namespace imae
