// Element types and 16-byte packs of them: how rows are read and written, at any alignment.
#pragma once
#include "device.h"

namespace imae {

template <class T>
struct Compute {
  using Scalar = float;
};
template <>
struct Compute<double> {
  using Scalar = double;
};
template <class T>
using ScalarOf = typename Compute<T>::Scalar;

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void narrow(double x, double& to) { to = x; }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(float x, __half& to) { to = __float2half_rn(x); }
__device__ __forceinline__ void narrow(float x, __nv_bfloat16& to) { to = __float2bfloat16_rn(x); }

// 16 bytes. In registers it is indexed by constants only: every loop over it is unrolled.
template <class T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

// Calls body(e) for each element of a pack.
template <class T, class Body>
__device__ __forceinline__ void for_elements(Body body) {
#pragma unroll
  for (int e = 0; e < Pack<T>::kSize; ++e) body(e);
}

template <class T>
__device__ __forceinline__ Pack<T> filled(ScalarOf<T> x) {
  Pack<T> pack;
  for_elements<T>([&](int e) { narrow(x, pack.at[e]); });
  return pack;
}

template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* aligned) {
  Pack<T> pack;
  *reinterpret_cast<uint4*>(&pack) = *reinterpret_cast<const uint4*>(aligned);
  return pack;
}

template <class T>
__device__ __forceinline__ void store_pack(T* aligned, const Pack<T>& pack) {
  *reinterpret_cast<uint4*>(aligned) = *reinterpret_cast<const uint4*>(&pack);
}

// `count` elements anywhere in memory, cut at the multiples of 16 bytes: pack k holds the elements
// [first(k), first(k) + kSize). The first and the last pack may be partial.
template <class T>
struct Span {
  static constexpr int kSize = Pack<T>::kSize;
  const T* begin;
  int count;
  int shift;  // elements between the last multiple of 16 bytes and the beginning

  __device__ __forceinline__ Span(const T* begin, int count)
      : begin(begin), count(count), shift(static_cast<int>(reinterpret_cast<uintptr_t>(begin) % 16 / sizeof(T))) {}
  __device__ __forceinline__ int packs() const { return (shift + count + kSize - 1) / kSize; }
  __device__ __forceinline__ int first(int k) const { return k * kSize - shift; }
  __device__ __forceinline__ bool has(int j) const { return static_cast<unsigned>(j) < static_cast<unsigned>(count); }
  __device__ __forceinline__ bool whole(int k) const { return first(k) >= 0 && first(k) + kSize <= count; }
  __device__ __forceinline__ Pack<T> load(int k) const { return load_pack(begin + first(k)); }
  // the part of pack k that is there; the rest is kept
  __device__ __forceinline__ void load_part(int k, Pack<T>& pack) const {
    for_elements<T>([&](int e) {
      if (has(first(k) + e)) pack.at[e] = begin[first(k) + e];
    });
  }
};

// Writes those elements of a pack that lie in [0, count): 16 bytes at once where the destination allows it.
template <class T>
__device__ __forceinline__ void write_pack(T* to, int first, int count, const Pack<T>& pack) {
  if (first >= 0 && first + Pack<T>::kSize <= count && reinterpret_cast<uintptr_t>(to + first) % 16 == 0) {
    store_pack(to + first, pack);
  } else {
    for_elements<T>([&](int e) {
      if (first + e >= 0 && first + e < count) to[first + e] = pack.at[e];
    });
  }
}

}  // namespace imae
