#include <cstdlib>
#include <string_view>

#include "instruction_sets.h"
#include "std.h"

#if defined(IMAE_X86)
#include <cpuid.h>
#endif

namespace imae {

extern const CpuKernels baseline_kernels;
#if defined(IMAE_X86)
extern const CpuKernels avx2_kernels, avx512_kernels;
#endif

namespace {
#if defined(IMAE_X86)
// Compilers learned of the levels themselves, and of some features, at different times: GCC 12, Clang 18.
bool has_feature(unsigned leaf, unsigned bit) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(leaf, &a, &b, &c, &d) && (c >> bit & 1);
}
bool has_x86_64_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && has_feature(1, 22 /* MOVBE */) && has_feature(1, 29 /* F16C */) &&
         has_feature(0x80000001, 5 /* LZCNT */);
}
bool has_x86_64_v4() {
  return has_x86_64_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const CpuKernels& choose() {
#if defined(IMAE_X86)
  const char* wish = std::getenv("IMAE_EXT_CPU");
  const std::string_view most = wish ? wish : "";
  __builtin_cpu_init();
  if (most != "baseline" && most != "avx2" && has_x86_64_v4()) return avx512_kernels;
  if (most != "baseline" && has_x86_64_v3()) return avx2_kernels;
#endif
  return baseline_kernels;
}
}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose();
  return chosen;
}

}  // namespace imae
