// The arithmetic of one CUDA thread: the M of arithmetic.h, and the exponential of the sweeps.
#pragma once
#ifdef SIMT_EMULATOR
#define IMAE_DYNAMIC_SHARED(name) SIMT_DYNAMIC_SHARED(name)
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define IMAE_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "../rows.h"

namespace imae {

template <class S>
struct Device {
  using Scalar = S;
  using Real = S;
  static constexpr __device__ S infinity() { return static_cast<S>(INFINITY); }
  static constexpr __device__ S largest() { return sizeof(S) == 8 ? S(DBL_MAX) : S(FLT_MAX); }
  static __device__ __forceinline__ S set(S x) { return x; }
  static __device__ __forceinline__ S exp(S x) { return ::exp(x); }
  static __device__ __forceinline__ S expm1(S x) { return ::expm1(x); }
  // These two are faster on a CPU than for any x.
  static __device__ __forceinline__ S exp_nonpositive(S x) { return ::exp(x); }
  static __device__ __forceinline__ S expm1_near(S x) { return ::expm1(x); }
  static __device__ __forceinline__ S log(S x) { return ::log(x); }
  static __device__ __forceinline__ S log1p(S x) { return ::log1p(x); }
  static __device__ __forceinline__ S abs(S x) { return ::fabs(x); }
  static __device__ __forceinline__ S max(S x, S y) { return x > y ? x : y; }
  static __device__ __forceinline__ S min(S x, S y) { return x < y ? x : y; }
  static __device__ __forceinline__ S select(bool mask, S yes, S no) { return mask ? yes : no; }
  static __device__ __forceinline__ bool isinf(S x) { return abs(x) == infinity(); }
};

// exp(x) in the sweeps. x is a difference from the maximum, rounded once: were the maximum folded into the
// multiplication instead, a common offset of 1e4 would cost three digits. Below 2^-126 the result is 0.
__device__ __forceinline__ float fast_exp(float x) {
  const float power = x * 1.44269504f;
  float y;
#ifdef SIMT_EMULATOR
  y = power < -126 ? 0.0f : exp2f(power);
#else
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(power));
#endif
  return y;
}
__device__ __forceinline__ double fast_exp(double x) { return ::exp(x); }

// The larger one; x if y is NaN.
__device__ __forceinline__ float larger(float x, float y) { return fmaxf(x, y); }  // one instruction
__device__ __forceinline__ double larger(double x, double y) { return y > x ? y : x; }

// A maximum of -infinity stands for 0, so that -infinity less the maximum is -infinity and not NaN.
template <class S>
__device__ __forceinline__ S finite_or_zero(S max) {
  return max == -Device<S>::infinity() ? S(0) : max;
}

}  // namespace imae
