// Toy kernels that prove the emulator: each is right with fault = 0 and breaks one rule with another.
// Valid CUDA: nvcc compiles this file as it is.
#pragma once
#include <cstdint>
#ifdef SIMT_EMULATOR
#define TOY_DYNAMIC_SHARED(name) SIMT_DYNAMIC_SHARED(name)
#else
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define TOY_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

namespace toys {

constexpr unsigned kFull = 0xffffffffu;

struct Data {
  const float* x;     // (n)
  float* out;         // (n)
  unsigned* counter;  // zero at the start
  int n;
  int fault;
};

// ---- Reductions

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(kFull, v, step);
  return v;
}

template <int kThreads>
__device__ float block_sum(float v, int fault) {
  __shared__ float part[kThreads / 32];
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  if (fault != 1) __syncthreads();  // 1: reads what the other warps have not written yet
  v = threadIdx.x % 32 < kThreads / 32 ? part[threadIdx.x % 32] : 0.0f;
  v = warp_sum(v);
  if (fault != 2) __syncthreads();  // 2: the next call overwrites `part` while a slow warp still reads it
  return v;
}

// Each block sums its slice of x twice: out[2 b] the sum, out[2 b + 1] that of the squares.
template <int kThreads>
__global__ void block_sums(Data d) {
  const int slice = d.n / gridDim.x;
  float sum = 0, squares = 0;
  for (int i = threadIdx.x; i < slice; i += kThreads) {
    const float x = __ldg(d.x + blockIdx.x * slice + i);
    sum += x;
    squares += x * x;
  }
  sum = block_sum<kThreads>(sum, d.fault);
  squares = block_sum<kThreads>(squares, d.fault);
  if (threadIdx.x == 0) d.out[2 * blockIdx.x] = sum, d.out[2 * blockIdx.x + 1] = squares;
}

// out[0] = sum of x, in one launch: the block that draws the last ticket adds up what the others left.
__global__ void ticket_sum(Data d) {
  __shared__ bool last;
  const int slice = d.n / gridDim.x;
  float sum = 0;
  for (int i = threadIdx.x; i < slice; i += blockDim.x) sum += d.x[blockIdx.x * slice + i];
  sum = block_sum<64>(sum, 0);
  if (threadIdx.x == 0) {
    if (d.fault == 2) __threadfence();  // too early
    if (d.fault != 4) d.out[1 + blockIdx.x] = sum;
    if (d.fault == 0 || d.fault >= 3) __threadfence();  // 1: no fence at all
    last = atomicInc(d.counter, gridDim.x - 1) == gridDim.x - 1;
    if (d.fault != 3) __threadfence();              // 3: nothing orders the reads below after the ticket
    if (d.fault == 4) d.out[1 + blockIdx.x] = sum;  // written after the ticket is drawn
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float all = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) all += d.out[1 + b];
    d.out[0] = all;
  }
}

// ---- Clusters

// out[2 b] = the sum of x over block b's cluster, out[2 b + 1] that of the squares. Each block writes its sums to all.
// fault 1: to blocks that may not have begun; 2: read before they are written; 3: overwritten while a slow block reads.
__global__ void cluster_sums(Data d) {
  TOY_DYNAMIC_SHARED(bytes);
  const auto cluster = cooperative_groups::this_cluster();
  const unsigned rank = cluster.block_rank(), size = cluster.num_blocks();
  const float x = d.x[blockIdx.x * blockDim.x + threadIdx.x];
  if (d.fault != 1) cluster.sync();
  for (int turn = 0; turn < 2; ++turn) {
    float* part = reinterpret_cast<float*>(bytes) + (d.fault == 3 ? 0 : turn * size);
    const float sum = block_sum<64>(turn == 0 ? x : x * x, 0);
    if (threadIdx.x < size) *cluster.map_shared_rank(part + rank, threadIdx.x) = sum;
    if (d.fault != 2) cluster.sync();
    float all = 0;
    for (unsigned b = 0; b < size; ++b) all += part[b];
    if (threadIdx.x == 0) d.out[2 * blockIdx.x + turn] = all;
  }
}

// Each block reads the slice of the next one in its cluster. The comment names the report.
__global__ void next_block(Data d) {
  TOY_DYNAMIC_SHARED(bytes);
  const auto cluster = cooperative_groups::this_cluster();
  const unsigned t = threadIdx.x, i = blockIdx.x * blockDim.x + t, rank = cluster.block_rank();
  float* slice = reinterpret_cast<float*>(bytes);
  slice[t] = d.x[i];
  if (d.fault == 1 && rank == 1) cluster.sync();            // divergent barrier
  if (d.fault == 2 && rank == 1 && t == 3) return;          // barrier after exit; the hardware lets it pass
  if (d.fault == 3 && rank == 1 && t < 7) __syncthreads();  // deadlock: the others are in the cluster's barrier
  cluster.sync();
  const unsigned next = d.fault == 4 ? rank + 1 : (rank + 1) % cluster.num_blocks();  // 4: a fault: a rank
  if (d.fault == 5) slice += blockDim.x;                                              // a fault: an address
  const float* there = cluster.map_shared_rank(slice + t, next);
  if (d.fault != 7) d.out[i] = *there;
  if (d.fault != 6) cluster.sync();     // 6: early exit, or a fault: access to a block that has exited
  if (d.fault == 7) d.out[i] = *there;  // after the barrier that let the other block go
}

// ---- Memory

// fault 1: an element behind the end; 2: all blocks write the same one.
__global__ void copy(Data d) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int limit = d.fault == 1 ? d.n + 1 : d.n;
  if (i < limit) d.out[i] = d.x[i];
  if (d.fault == 2 && threadIdx.x == 0) d.out[0] = d.x[0];
}

// 16 bytes at a time. fault 1: from an address that is not a multiple of 16; 2: the same through __ldg.
__global__ void copy4(Data d) {
  const int i = threadIdx.x;
  if (i >= d.n / 4 - 1) return;
  const float4* from = reinterpret_cast<const float4*>(d.x + (d.fault != 0));
  float4* to = reinterpret_cast<float4*>(d.out);
  if (d.fault == 2)
    to[i] = __ldg(from + i);
  else
    to[i] = from[i];
}

// Reverses the block's slice through dynamic shared memory. fault 1: no barrier; 2: one element too many;
// 3: reads an element that nobody wrote.
__global__ void reverse(Data d) {
  TOY_DYNAMIC_SHARED(bytes);
  float* slice = reinterpret_cast<float*>(bytes);
  const int t = threadIdx.x, n = blockDim.x, base = blockIdx.x * n;
  if (d.fault != 3 || t != 5) slice[t] = d.x[base + t];
  if (d.fault == 2 && t == 0) slice[n] = 0;
  if (d.fault != 1) __syncthreads();
  d.out[base + t] = slice[n - 1 - t];
}

// out = what static shared memory holds before anything is written to it; every block leaves something behind.
__global__ void stale_shared(Data d) {
  __shared__ float stale[64];
  d.out[blockIdx.x * blockDim.x + threadIdx.x] = stale[threadIdx.x];
  __syncthreads();
  stale[threadIdx.x] = 1.0f;
}

// fault 1: an index behind the array.
__global__ void static_overrun(Data d) {
  __shared__ float room[32];
  room[threadIdx.x + d.fault] = d.x[threadIdx.x];
  d.out[threadIdx.x] = room[threadIdx.x + d.fault];
}

// A neighbour's value through shared memory. fault 1: only a shuffle lies between, which does not order memory.
__global__ void neighbour(Data d) {
  __shared__ float shared[32];
  const int t = threadIdx.x;
  shared[t] = d.x[t];
  if (d.fault == 0) __syncwarp();
  const int next = __shfl_sync(kFull, t, t + 1);
  d.out[t] = shared[next];
}

__device__ void swap_within(unsigned mask, float* shared, const Data& d) {
  shared[threadIdx.x] = d.x[threadIdx.x];
  __syncwarp(mask);
  d.out[threadIdx.x] = shared[threadIdx.x ^ (d.fault == 1 ? 16 : 1)];
}

// The halves of a warp go separate ways. fault 1: they read from each other, which their barriers do not order.
__global__ void half_warps(Data d) {
  __shared__ float shared[32];
  if (threadIdx.x < 16)
    swap_within(0x0000ffffu, shared, d);
  else
    swap_within(0xffff0000u, shared, d);
}

// The blocks hand a value on, from the first to the last. Ends only if all blocks are resident, or run in order.
__global__ void relay(Data d) {
  if (threadIdx.x != 0) return;
  while (atomicAdd(d.counter, 0u) != blockIdx.x) {
  }
  __threadfence();
  d.out[blockIdx.x] = (blockIdx.x == 0 ? 0.0f : d.out[blockIdx.x - 1]) + d.x[blockIdx.x];
  if (d.fault == 0) __threadfence();
  atomicAdd(d.counter, 1u);
}

// out[thread] = when its turn came.
__global__ void turns(Data d) {
  const int in_block = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int i = blockIdx.x * blockDim.x * blockDim.y * blockDim.z + in_block;
  d.out[i] = atomicAdd(d.counter, 1u);
}

// ---- Rules of warps and barriers; the comment names the report

__global__ void divergent_barrier(Data d) {
  if (d.fault == 1 && threadIdx.x < 7) __syncthreads();
  __syncthreads();
  if (d.fault == 2 && threadIdx.x == 3) return;  // barrier after exit; the hardware lets it pass
  __syncthreads();
  d.out[threadIdx.x] = 1;
}

__global__ void masks(Data d) {
  const int lane = threadIdx.x;
  unsigned mask = kFull;
  int source = 0;
  if (d.fault == 1) mask = 0x0000ffffu;                        // calling lane not in mask
  if (d.fault == 2 && lane == 9) return;                       // mask names a missing lane
  if (d.fault == 3) mask = lane < 16 ? 0xffffu : 0xffff0000u;  // source lane not in mask
  if (d.fault == 4) mask = lane < 16 ? kFull : 0xffffff00u;    // different masks meet
  if (d.fault == 5 && lane == 4) {                             // different warp operations meet
    d.out[lane] = __any_sync(mask, 1);
  } else if (d.fault == 6 && lane == 4) {  // deadlock: one in a barrier, one in a shuffle
    __syncthreads();
  } else {
    d.out[lane] = __shfl_sync(mask, d.x[lane], source, d.fault == 7 ? 12 : 32);  // 7: a fault
  }
}

__global__ void trap(Data d) {
  if (d.fault == 1 && threadIdx.x == 2 && blockIdx.x == 1) __trap();
#ifdef SIMT_EMULATOR
  if (d.fault == 2) throw std::runtime_error("thrown by a toy");
#endif
}

}  // namespace toys
