// The kernels for AVX2 (x86-64-v3). Processors that lack PREFETCHW take it for a NOP.
#include "std.h"

#if defined(IMAE_X86)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3,prfchw"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v3,prfchw")
#endif
#define IMAE_F16C
#define IMAE_ISA avx2
#define IMAE_VECTOR_BYTES 32
#include "kernels.h"

namespace imae {
extern const CpuKernels avx2_kernels;
constinit const CpuKernels avx2_kernels = avx2::kernels("avx2");
}  // namespace imae
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // IMAE_X86
