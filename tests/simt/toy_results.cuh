// Toy kernels without faults, which show what each device function gives.
#pragma once
#include "toys.cuh"

namespace toys {

struct Pair {
  float value, index;
};

// out[32 k + lane] = what the k-th warp operation gives.
__global__ void warp_operations(Data d) {
  const int lane = threadIdx.x;
  const float x = d.x[lane];
  int k = 0;
  const auto put = [&](float v) { d.out[32 * k++ + lane] = v; };
  put(__shfl_sync(kFull, x, 5));
  put(__shfl_sync(kFull, x, lane + 3, 8));
  put(__shfl_xor_sync(kFull, x, 9));
  put(__shfl_xor_sync(kFull, x, 3, 4));
  put(__shfl_up_sync(kFull, x, 3));
  put(__shfl_up_sync(kFull, x, 3, 8));
  put(__shfl_down_sync(kFull, x, 3));
  put(__shfl_down_sync(kFull, x, 3, 8));
  put(__popc(__ballot_sync(kFull, x > 0)));
  put(__any_sync(kFull, lane == 7) + 2 * __any_sync(kFull, lane == 32));
  put(__all_sync(kFull, lane < 32) + 2 * __all_sync(kFull, lane < 31));
  put(__reduce_add_sync(kFull, lane - 16));
  put(__reduce_min_sync(kFull, lane - 16));
  put(__reduce_max_sync(kFull, unsigned(lane)));
  put(__syncthreads_count(lane % 3 == 0));
  put(__syncthreads_or(lane == 40) + 2 * __syncthreads_and(lane < 40));
  put(__popc(__activemask()));
  // other types travel whole
  const double wide = 1.0 + lane * 1e-12;
  const long long big = (1LL << 40) + lane;
  const Pair pair{x, float(lane)};
  const Pair got{__shfl_xor_sync(kFull, pair.value, 1), __shfl_xor_sync(kFull, pair.index, 1)};
  put(__shfl_xor_sync(kFull, wide, 1) == 1.0 + (lane ^ 1) * 1e-12);
  put(__shfl_xor_sync(kFull, big, 1) == (1LL << 40) + (lane ^ 1));
  put(got.value + 100 * got.index);
  put(__half2float(__shfl_sync(kFull, __float2half_rn(x), 2)));
  put(__bfloat162float(__shfl_sync(kFull, __float2bfloat16_rn(x), 2)));
  if (lane >= 16)
    put(__shfl_sync(0xffff0000u, x, 20));
  else
    put(__shfl_sync(0x0000ffffu, x, 4));
}

// out[k] = the k-th function of numbers and bits.
__global__ void numbers(Data d) {
  if (threadIdx.x != 0) return;
  int k = 0;
  const auto put = [&](float v) { d.out[k++] = v; };
  put(__popc(0xf0f0u) + __popcll(1ull << 40));
  put(__ffs(0) + 10 * __ffs(8) + 1000 * __ffsll(1ll << 40));
  put(__clz(1) + 100 * __clzll(1));
  put(__uint_as_float(__float_as_uint(1.5f) ^ 0x80000000u));
  put(__int_as_float(__float_as_int(2.5f)));
  put(rsqrtf(4.0f) + __fdividef(1.0f, 8.0f));
  put(min(3, 4u) + max(5u, 2) + min(1.0f, 2.0f) + max(-1.0, 7.0));
  put(fmaxf(NAN, 2.0f) + fminf(3.0f, NAN) + __saturatef(9.0f));
  put(roundf(1000 * __expf(1.0f)) + exp2f(3.0f) + __log2f(16.0f));
  put(__umulhi(1u << 31, 6u) + (warpSize == 32));
  const float4 v = make_float4(1, 2, 3, 4);
  const uint2 w = make_uint2(5, 6);
  put(v.x + v.y + v.z + v.w + w.x + w.y);
  put(sizeof(float4) + alignof(float4) + alignof(uint2) + alignof(double2) + sizeof(__half) + alignof(__nv_bfloat162));
  put(float(__half(0.1f)) - float(__nv_bfloat16(0.1f)));
  put(__half22float2(__floats2half2_rn(1.0f, 2.0f)).y + __bfloat1622float2(__floats2bfloat162_rn(3.0f, 4.0f)).x);
}

// out[k] for the k-th atomic, each applied by all 64 threads to a cell that begins at 0.
__global__ void atomics(Data d) {
  __shared__ float f;
  __shared__ double g;
  __shared__ int i, least, most;
  __shared__ unsigned u, wrap;
  __shared__ unsigned long long l;
  const int t = threadIdx.x;
  if (t == 0) f = g = i = least = most = u = wrap = l = 0;
  __syncthreads();
  atomicAdd(&f, 0.5f);
  atomicAdd(&g, 0.25);
  atomicAdd(&i, -t);
  atomicMin(&least, -t);
  atomicMax(&most, t);
  atomicAdd(&u, unsigned(t));
  atomicInc(&wrap, 4u);
  atomicAdd(&l, 1ull << 33);
  while (atomicCAS(d.counter, 0u, 1u) != 0u) {  // a lock
  }
  __threadfence();
  d.out[8] += t;
  __threadfence();
  atomicExch(d.counter, 0u);
  __syncthreads();
  if (t == 0) {
    d.out[0] = f, d.out[1] = g, d.out[2] = i, d.out[3] = least, d.out[4] = most;
    d.out[5] = u, d.out[6] = wrap, d.out[7] = l >> 33;
  }
}

}  // namespace toys
