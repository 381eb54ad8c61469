// Runs one toy kernel: as a library (run_toy) and, for the sanitizers, as a program: toys {NAME FAULT SEED RESIDENT}.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "simt.h"  // before the kernels

#include "toy_results.cuh"
#include "toys.cuh"

namespace {

struct Toy {
  const char* name;
  dim3 grid, block;
  size_t dynamic_shared;
  void (*kernel)(toys::Data);
  int n;  // elements of x and of out
  unsigned cluster = 1;
};

const Toy kToys[] = {
    {"block_sums", 4, 128, 0, toys::block_sums<128>, 1024},
    {"ticket_sum", 8, 64, 0, toys::ticket_sum, 1024},
    {"copy", 4, 64, 0, toys::copy, 250},
    {"copy4", 1, 64, 0, toys::copy4, 256},
    {"reverse", 2, 64, 64 * sizeof(float), toys::reverse, 128},
    {"stale_shared", 3, 64, 0, toys::stale_shared, 192},
    {"static_overrun", 1, 32, 0, toys::static_overrun, 32},
    {"neighbour", 1, 32, 0, toys::neighbour, 32},
    {"half_warps", 1, 32, 0, toys::half_warps, 32},
    {"relay", 4, 32, 0, toys::relay, 32},
    {"turns", 2, dim3(16, 2, 2), 0, toys::turns, 128},
    {"divergent_barrier", 1, 64, 0, toys::divergent_barrier, 64},
    {"masks", 1, 32, 0, toys::masks, 32},
    {"trap", 2, 32, 0, toys::trap, 32},
    {"warp_operations", 1, 32, 0, toys::warp_operations, 32 * 23},
    {"numbers", 1, 32, 0, toys::numbers, 14},
    {"atomics", 1, 64, 0, toys::atomics, 9},
    {"cluster_sums", 8, 64, 8 * sizeof(float), toys::cluster_sums, 512, 4},
    {"next_block", 8, 64, 64 * sizeof(float), toys::next_block, 512, 4},
    {"odd_clusters", 6, 64, 64 * sizeof(float), toys::next_block, 384, 4},
    {"large_cluster", 18, 64, 64 * sizeof(float), toys::next_block, 1152, 9},
    {"no_threads", 1, 0, 0, toys::copy, 1},
    {"many_threads", 1, dim3(32, 33), 0, toys::copy, 1},
    {"tall_grid", dim3(1, 65536), 32, 0, toys::copy, 1},
    {"much_shared", 1, 32, (227 << 10) + 1, toys::copy, 1},
};

}  // namespace

SIMT_EXPORT const char* run_toy(const char* name, int fault, unsigned seed, unsigned resident, int exited_threads_count,
                                const float* x, float* out) {
  for (const Toy& toy : kToys) {
    if (std::string(toy.name) != name) continue;
    return simt::error_of([&] {
      unsigned counter = 0;
      const simt::Config config{toy.grid,   toy.block, toy.dynamic_shared, seed, resident, exited_threads_count != 0,
                                toy.cluster};
      simt::launch(config, toy.kernel, toys::Data{x, out, &counter, toy.n, fault});
    });
  }
  return "no such toy";
}

SIMT_EXPORT int toy_size(const char* name) {
  for (const Toy& toy : kToys)
    if (std::string(toy.name) == name) return toy.n;
  return -1;
}

SIMT_EXPORT void half_to_float(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = __half2float(__ushort_as_half(from[i]));
}
SIMT_EXPORT void float_to_half(const float* from, uint16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = __half_as_ushort(__float2half_rn(from[i]));
}
SIMT_EXPORT void bfloat16_to_float(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = __bfloat162float(__ushort_as_bfloat16(from[i]));
}
SIMT_EXPORT void float_to_bfloat16(const float* from, uint16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = __bfloat16_as_ushort(__float2bfloat16_rn(from[i]));
}

int main(int argc, char** argv) {
  for (int k = 1; k + 3 < argc; k += 4) {
    const int n = toy_size(argv[k]);
    std::vector<float> x(n), out(n);
    for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 17) - 8;
    const char* error = run_toy(argv[k], std::atoi(argv[k + 1]), std::atoi(argv[k + 2]), std::atoi(argv[k + 3]), 0,
                                x.data(), out.data());
    if (error) return std::puts(error), 1;
  }
}
