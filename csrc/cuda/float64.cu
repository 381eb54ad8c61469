#include "launch.h"

namespace imae {
const CudaKernels cuda_float64 = cuda_kernels<double>();
}  // namespace imae
