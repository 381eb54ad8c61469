// SIMT emulator: compiles CUDA kernels as C++ and runs them on the CPU, so that they can be tested where there is no
// GPU, in chosen thread orders, and under AddressSanitizer, ThreadSanitizer and UndefinedBehaviorSanitizer.
//
//   #include "simt.h"       // defines SIMT_EMULATOR and CUDA's keywords, types and device functions
//   #include "kernel.cuh"   // plain CUDA; includes CUDA's own headers only #ifndef SIMT_EMULATOR
//   simt::launch(grid, block, dynamic_shared_bytes, seed, kernel<128, float>, x, y, n);
//
// One OS thread runs everything; each CUDA thread is a fiber, which runs until it must wait for others.
//
//   sanitizers.h      what the sanitizers must be told about fibers, barriers and fences
//   fibers.h          stacks, and the switch between them
//   shared_memory.h   static and dynamic shared memory
//   vectors.h half.h cuda_math.h    CUDA's types and functions that need no other thread
//   block.h           threads, warps and blocks, and what they wait for
//   order.h           seeded orders of threads, warps and blocks
//   report.h          faults in words
//   scheduler.h       turns within a block
//   launch.h          the grid: simt::launch
//   warp.h memory.h   what kernels call: shuffles, votes, barriers, atomics, fences
//   cluster.h         and the blocks of a cluster
#pragma once
#define SIMT_EMULATOR 1

#include "cluster.h"
#include "cuda_math.h"
#include "half.h"
#include "launch.h"
#include "memory.h"
#include "warp.h"

// After all standard headers: some of them use such names.
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

/// On the device: extern __shared__ __align__(16) unsigned char name[];
#define SIMT_DYNAMIC_SHARED(name) unsigned char* const name = simt::dynamic_shared()

/// For functions called from Python through ctypes.
#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))

inline constexpr int warpSize = 32;
inline const uint3& threadIdx = simt::thread_index;
inline const uint3& blockIdx = simt::block_index;
inline const dim3& blockDim = simt::block_dim;
inline const dim3& gridDim = simt::grid_dim;

[[noreturn]] inline void __trap(SIMT_AT) { simt::fail_here("__trap", at); }
