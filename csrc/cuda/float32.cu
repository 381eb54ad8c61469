#include "launch.h"

namespace imae {
const CudaKernels cuda_float32 = cuda_kernels<float>();
}  // namespace imae
