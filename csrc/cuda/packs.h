// Element types and 16-byte packs of them: how rows are read and written, at any alignment.
#pragma once
#include <type_traits>

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

// Two elements of half precision in a word, the first one lower.
template <class T>
__device__ __forceinline__ float widen_half(unsigned word, int e) {
  if constexpr (std::is_same_v<T, __half>)
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16 * e)));
  else  // a bfloat16 is the upper half of a float
    return __uint_as_float(e == 0 ? word << 16 : word & 0xffff0000);
}
template <class T>
__device__ __forceinline__ unsigned narrow_halves(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 two = __floats2half2_rn(low, high);
    return __half_as_ushort(two.x) | static_cast<unsigned>(__half_as_ushort(two.y)) << 16;
  } else {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return __bfloat16_as_ushort(two.x) | static_cast<unsigned>(__bfloat16_as_ushort(two.y)) << 16;
  }
}
// of either two elements the larger one; of a number and NaN, the number
template <class T>
__device__ __forceinline__ unsigned larger_halves(unsigned x, unsigned y) {
  using Two = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  const Two larger = __hmax2(reinterpret_cast<const Two&>(x), reinterpret_cast<const Two&>(y));
  return reinterpret_cast<const unsigned&>(larger);
}

// 16 bytes of elements. They are kept as words, or the compiler would give each half a register of its own; and they
// are indexed by constants only, in unrolled loops, or it would put them in memory.
template <class T>
struct alignas(16) Pack {
  using S = ScalarOf<T>;
  static constexpr int kSize = 16 / sizeof(T);
  unsigned word[4];

  __device__ __forceinline__ S at(int e) const {
    if constexpr (sizeof(T) == 2)
      return widen_half<T>(word[e / 2], e % 2);
    else if constexpr (sizeof(T) == 4)
      return __uint_as_float(word[e]);
    else
      return __longlong_as_double(static_cast<long long>(static_cast<uint64_t>(word[2 * e + 1]) << 32 | word[2 * e]));
  }

  // each element becomes f(e), its rounded value
  template <class F>
  __device__ __forceinline__ void set(F f) {
#pragma unroll
    for (int e = 0; e < kSize; ++e) {
      if constexpr (sizeof(T) == 2) {
        if (e % 2 == 0) word[e / 2] = narrow_halves<T>(f(e), f(e + 1));
      } else if constexpr (sizeof(T) == 4) {
        word[e] = __float_as_uint(f(e));
      } else {
        const auto bits = static_cast<uint64_t>(__double_as_longlong(f(e)));
        word[2 * e] = static_cast<unsigned>(bits);
        word[2 * e + 1] = static_cast<unsigned>(bits >> 32);
      }
    }
  }

  // each element becomes the larger one of itself and x's; x's may be NaN, which is left out
  __device__ __forceinline__ void raise_to(const Pack& x) {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int w = 0; w < 4; ++w) word[w] = larger_halves<T>(word[w], x.word[w]);
    } else {
      set([&](int e) { return larger(at(e), x.at(e)); });
    }
  }
  __device__ __forceinline__ S largest() const {
    if constexpr (sizeof(T) == 2) {
      const unsigned two = larger_halves<T>(larger_halves<T>(word[0], word[1]), larger_halves<T>(word[2], word[3]));
      return larger(widen_half<T>(two, 0), widen_half<T>(two, 1));
    } else if constexpr (sizeof(T) == 4) {
      return larger(larger(at(0), at(1)), larger(at(2), at(3)));
    } else {
      return larger(at(0), at(1));
    }
  }
};

template <class T>
__device__ __forceinline__ Pack<T> filled(ScalarOf<T> x) {
  Pack<T> pack;
  pack.set([=](int) { return x; });
  return pack;
}

template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* aligned) {
  const uint4 raw = *reinterpret_cast<const uint4*>(aligned);
  return {{raw.x, raw.y, raw.z, raw.w}};
}

// To global memory. The compiler may take a plain assignment apart into words.
template <class T>
__device__ __forceinline__ void store_pack(T* aligned, const Pack<T>& pack) {
#ifdef SIMT_EMULATOR
  __stwb(reinterpret_cast<uint4*>(aligned), make_uint4(pack.word[0], pack.word[1], pack.word[2], pack.word[3]));
#else
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(aligned)), "r"(pack.word[0]),
               "r"(pack.word[1]), "r"(pack.word[2]), "r"(pack.word[3])
               : "memory");
#endif
}

// Copies 16 bytes from global to shared memory, past the registers, so that many copies are on their way at once.
// They are there, for this thread, after wait_for_copies.
template <class T>
__device__ __forceinline__ void copy_pack_async(T* shared, const T* global) {
#ifdef SIMT_EMULATOR
  *reinterpret_cast<uint4*>(shared) = *reinterpret_cast<const uint4*>(global);
#else
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#endif
}
__device__ __forceinline__ void wait_for_copies() {
#ifndef SIMT_EMULATOR
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// `count` elements anywhere in memory: whole packs at multiples of 16 bytes, and fewer than kSize elements at either
// end, the edges.
template <class T>
struct Span {
  static constexpr int kSize = Pack<T>::kSize;
  static constexpr int kMostEdges = 2 * (kSize - 1);
  const T* begin;
  int count, head, packs;

  __device__ __forceinline__ Span(const T* begin, int count) : begin(begin), count(count) {
    const int past = static_cast<int>(reinterpret_cast<uintptr_t>(begin) % 16 / sizeof(T));
    head = past == 0 ? 0 : kSize - past;
    if (head > count) head = count;
    packs = (count - head) / kSize;
  }
  // where pack k begins
  __device__ __forceinline__ int first(int k) const { return head + k * kSize; }
  __device__ __forceinline__ Pack<T> load(int k) const { return load_pack(begin + first(k)); }
  // the element that is edge number n, or -1
  __device__ __forceinline__ int edge(int n) const {
    const int j = n < head ? n : n + packs * kSize;
    return j < count ? j : -1;
  }
};

template <class T>
__device__ __forceinline__ bool is_aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

}  // namespace imae
