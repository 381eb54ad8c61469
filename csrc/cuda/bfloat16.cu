#include "launch.h"

namespace imae {
const CudaKernels cuda_bfloat16 = cuda_kernels<__nv_bfloat16>();
}  // namespace imae
