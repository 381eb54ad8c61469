// The kernels for every processor: SSE2 on x86-64, NEON on 64-bit Arm.
#include "std.h"

#define IMAE_ISA baseline
#define IMAE_VECTOR_BYTES 16
#include "kernels.h"

namespace imae {
extern const CpuKernels baseline_kernels;
constinit const CpuKernels baseline_kernels = baseline::kernels("baseline");
}  // namespace imae
