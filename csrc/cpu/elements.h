// Element types: how a vector of logits becomes a vector to compute with, and back.
#pragma once
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct Compute {
  using Scalar = T;
};
template <>
struct Compute<Half> {
  using Scalar = float;
};
template <>
struct Compute<BFloat16> {
  using Scalar = float;
};
template <class T>
using ScalarOf = typename Compute<T>::Scalar;
template <class T>
using RealOf = typename Vector<ScalarOf<T>>::Real;

constexpr int kFloats = Simd<float>::kLanes;
using U16 = VectorOf<uint16_t, kFloats>::type;
using U32 = VectorOf<uint32_t, kFloats>::type;
using Floats = Vector<float>::Real;

IMAE_INLINE Floats widen(BFloat16, U16 x) { return bit_cast<Floats>(__builtin_convertvector(x, U32) << 16); }
// Rounded in the high half: to the nearest, ties to even. A NaN stays one if the lower half of its bits is clear, as in
// those that arithmetic makes and those that came from bfloat16.
IMAE_INLINE U32 round_known(Floats x) {
  const U32 bits = bit_cast<U32>(x);
  return bits + 0x7fffu + ((bits >> 16) & 1u);
}
IMAE_INLINE U32 round_high(Floats x) { return x == x ? round_known(x) : bit_cast<U32>(x) | 0x400000u; }
IMAE_INLINE U16 narrow(BFloat16, Floats x) { return __builtin_convertvector(round_high(x) >> 16, U16); }

#if defined(IMAE_F16C)
IMAE_INLINE Floats widen(Half, U16 x) {
#if IMAE_VECTOR_BYTES == 64
  return bit_cast<Floats>(_mm512_cvtph_ps(bit_cast<__m256i>(x)));
#else
  return bit_cast<Floats>(_mm256_cvtph_ps(bit_cast<__m128i>(x)));
#endif
}
IMAE_INLINE U16 narrow(Half, Floats x) {
#if IMAE_VECTOR_BYTES == 64
  return bit_cast<U16>(_mm512_cvtps_ph(bit_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  return bit_cast<U16>(_mm256_cvtps_ph(bit_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT));
#endif
}
#else
IMAE_INLINE Floats widen(Half, U16 x) {
  constexpr uint32_t kOne = 1 << 23;  // in a float's exponent, which is 112 more than that of a half
  const U32 half = __builtin_convertvector(x, U32), sign = (half & 0x8000u) << 16, size = (half & 0x7fffu) << 13;
  const U32 normal = size + (size < 31 * kOne ? U32{} + 112 * kOne : U32{} + 224 * kOne);
  const U32 subnormal = bit_cast<U32>(bit_cast<Floats>(size + 113 * kOne) - 0x1p-14f);
  return bit_cast<Floats>((size < kOne ? subnormal : normal) | sign);
}
IMAE_INLINE U16 narrow(Half, Floats x) {  // to the nearest, ties to even
  constexpr uint32_t kOne = 1 << 23;
  const U32 bits = bit_cast<U32>(x), size = bits & 0x7fffffffu;
  const U32 normal = (size - 112 * kOne + 0xfffu + ((size >> 13) & 1u)) >> 13;
  const U32 subnormal = bit_cast<U32>(bit_cast<Floats>(size) + 0.5f) - 126 * kOne;  // the sum rounds
  const U32 beyond = size > 255 * kOne ? U32{} + 0x7e00u : U32{} + 0x7c00u;         // NaN, else infinity
  const U32 half = size < 113 * kOne ? subnormal : size < 143 * kOne ? normal : beyond;
  return __builtin_convertvector(half | ((bits ^ size) >> 16), U16);
}
#endif

template <class T>
IMAE_INLINE RealOf<T> load(const T* at) {
  if constexpr (sizeof(T) == 2) {
    U16 x;
    __builtin_memcpy(&x, at, sizeof x);
    return widen(T{}, x);
  } else {
    RealOf<T> x;
    __builtin_memcpy(&x, at, sizeof x);
    return x;
  }
}
template <class T>
IMAE_INLINE void store(T* at, RealOf<T> x) {
  if constexpr (sizeof(T) == 2) {
    const U16 y = narrow(T{}, x);
    __builtin_memcpy(at, &y, sizeof y);
  } else {
    __builtin_memcpy(at, &x, sizeof x);
  }
}

// Two vectors of adjacent elements, in the order that moves them fastest: lane l holds l * kStep and l * kStep + kNext.
template <class T>
struct Pair {
  static constexpr int kStep = 1, kNext = Vector<ScalarOf<T>>::kLanes;
  RealOf<T> first, second;
};
template <>
struct Pair<BFloat16> {  // the low and the high halves of 32-bit words
  static constexpr int kStep = 2, kNext = 1;
  Floats first, second;
};
template <class T>
IMAE_INLINE Pair<T> load_pair(const T* at) {
  if constexpr (Pair<T>::kNext == 1) {
    U32 x;
    __builtin_memcpy(&x, at, sizeof x);
    return {bit_cast<Floats>(x << 16), bit_cast<Floats>(x & 0xffff0000u)};
  } else {
    return {load(at), load(at + Pair<T>::kNext)};
  }
}
template <class T>
IMAE_INLINE void store_pair(T* at, Pair<T> x) {
  if constexpr (Pair<T>::kNext == 1) {
    const U32 y = (round_known(x.first) >> 16) | (round_known(x.second) & 0xffff0000u);
    __builtin_memcpy(at, &y, sizeof y);
  } else {
    store(at, x.first);
    store(at + Pair<T>::kNext, x.second);
  }
}

template <class T>
IMAE_INLINE ScalarOf<T> load_one(const T* at) {
  if constexpr (sizeof(T) == 2)
    return widen(T{}, at->bits - U16{})[0];
  else
    return *at;
}
template <class T>
IMAE_INLINE void store_one(T* at, ScalarOf<T> x) {
  if constexpr (sizeof(T) == 2)
    at->bits = narrow(T{}, x - Floats{})[0];
  else
    *at = x;
}

}  // namespace imae::IMAE_ISA
