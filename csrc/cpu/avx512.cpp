// The kernels for AVX-512 (x86-64-v4).
#include "std.h"

#if defined(IMAE_X86)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4,prfchw"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v4,prfchw")
#endif
#define IMAE_F16C
#define IMAE_ISA avx512
#define IMAE_VECTOR_BYTES 64
#include "kernels.h"

namespace imae {
extern const CpuKernels avx512_kernels;
constinit const CpuKernels avx512_kernels = avx512::kernels("avx512");
}  // namespace imae
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif  // IMAE_X86
