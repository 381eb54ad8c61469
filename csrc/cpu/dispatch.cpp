#include <cstdlib>
#include <string_view>

#include "../kernels.h"
#include "std.h"

namespace imae {

extern const CpuKernels baseline_kernels;
#if defined(IMAE_X86)
extern const CpuKernels avx2_kernels, avx512_kernels;
#endif

namespace {
const CpuKernels& choose() {
#if defined(IMAE_X86)
  const char* wish = std::getenv("IMAE_EXT_CPU");
  const std::string_view most = wish ? wish : "";
  __builtin_cpu_init();
  if (most != "baseline" && most != "avx2" && __builtin_cpu_supports("x86-64-v4")) return avx512_kernels;
  if (most != "baseline" && __builtin_cpu_supports("x86-64-v3")) return avx2_kernels;
#endif
  return baseline_kernels;
}
}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace imae
