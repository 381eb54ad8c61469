#include "launch.h"

namespace imae {
const CudaKernels cuda_float16 = cuda_kernels<__half>();
}  // namespace imae
