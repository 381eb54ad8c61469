// Vectors of the instruction set that a file is compiled for, and the arithmetic that arithmetic.h asks for.
// They are the compiler's own vector types, so that one source serves AVX-512, AVX2, SSE2 and NEON.
#pragma once
#include "isa.h"

namespace imae::IMAE_ISA {

// not std::bit_cast, which was compiled before the target was chosen: it would pass vectors another way
template <class To, class From>
IMAE_INLINE To bit_cast(From x) {
  return __builtin_bit_cast(To, x);
}

template <class T, int kLanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kLanes)));
};

template <class S>
struct Simd;

template <>
struct Simd<float> {
  using Scalar = float;
  using Int = int32_t;
  static constexpr int kLanes = IMAE_VECTOR_BYTES / 4;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kRound = 12582912.0f;  // adding it rounds to an integer in the low bits
  static constexpr float kExpLow = -87.33f, kExpHigh = 88.0f;
  static constexpr float kLn2High = 0.693145751953125f, kLn2Low = 1.428606820309417e-6f;
  static constexpr Int kSqrtHalf = 0x3f3504f3;
  static constexpr int kExpTerms = 6, kLogTerms = 5;
};

template <>
struct Simd<double> {
  using Scalar = double;
  using Int = int64_t;
  static constexpr int kLanes = IMAE_VECTOR_BYTES / 8;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kRound = 6755399441055744.0;
  static constexpr double kExpLow = -708.3, kExpHigh = 709.0;
  static constexpr double kLn2High = 0.69314718036912381649, kLn2Low = 1.9082149292705877e-10;
  static constexpr Int kSqrtHalf = 0x3fe6a09e667f3bcd;
  static constexpr int kExpTerms = 13, kLogTerms = 11;
};

// What Vector asks of its vectors beyond operators; wide.h has the same for several vectors at once.
template <class Mask, class Real>
IMAE_INLINE Real choose(Mask mask, Real yes, Real no) {
  return mask ? yes : no;
}
template <class To, class From>
IMAE_INLINE To convert(From x) {
  return __builtin_convertvector(x, To);
}
template <class To, class From>
IMAE_INLINE To cast_bits(From x) {
  return bit_cast<To>(x);
}

// The M of arithmetic.h: a Real holds one value for each of kLanes rows.
template <class S, class Real_ = typename VectorOf<S, Simd<S>::kLanes>::type,
          class Ints_ = typename VectorOf<typename Simd<S>::Int, Simd<S>::kLanes>::type>
struct Vector : Simd<S> {
  using typename Simd<S>::Int;
  using Simd<S>::kLanes;
  using Real = Real_;
  using Ints = Ints_;  // also the type of a comparison: 0 or -1

  static IMAE_INLINE Real set(S x) { return x - Real{}; }
  static IMAE_INLINE Ints set_int(Int x) { return x - Ints{}; }
  static IMAE_INLINE constexpr S infinity() { return std::numeric_limits<S>::infinity(); }
  static IMAE_INLINE Real select(Ints mask, Real yes, Real no) { return choose(mask, yes, no); }
  static IMAE_INLINE Real max(Real x, Real y) { return choose(x > y, x, y); }  // y if x is NaN
  static IMAE_INLINE Real min(Real x, Real y) { return choose(x < y, x, y); }
  static IMAE_INLINE Real abs(Real x) { return bits_to_real(real_to_bits(x) & std::numeric_limits<Int>::max()); }
  static IMAE_INLINE Ints isinf(Real x) { return abs(x) == set(infinity()); }
  static IMAE_INLINE Ints real_to_bits(Real x) { return cast_bits<Ints>(x); }
  static IMAE_INLINE Real bits_to_real(Ints x) { return cast_bits<Real>(x); }
  static IMAE_INLINE Ints iota() {
    Ints v{};
    for (int l = 0; l < kLanes; ++l) v[l] = l;
    return v;
  }

  // x - k ln(2)
  static IMAE_INLINE Real less_log2(Real x, Real k) { return (x - k * Simd<S>::kLn2High) - k * Simd<S>::kLn2Low; }

  struct Exponential {
    Real power, minus_one;  // exp(x) = power + power * minus_one, power = 2^k and |minus_one| < 0.42
  };
  static IMAE_INLINE Exponential exp_parts(Real x) {
    const Real shifted = x * S(std::numbers::log2e) + Simd<S>::kRound, k = shifted - Simd<S>::kRound;
    const Real f = less_log2(x, k);
    const Ints exponent = real_to_bits(shifted) + Int(Simd<S>::kBias);  // the low bits of shifted are k
    Real sum = set(coefficient(Simd<S>::kExpTerms));
#pragma GCC unroll 16
    for (int n = Simd<S>::kExpTerms - 1; n >= 2; --n) sum = sum * f + coefficient(n);
    return {bits_to_real(exponent << Simd<S>::kMantissa), f * f * sum + f};
  }
  // 1/n! for double; for float the minimax polynomial of Cephes
  static IMAE_INLINE constexpr S coefficient(int n) {
    if constexpr (sizeof(S) == 4) {
      constexpr S c[] = {
          1, 1, 5.0000001201e-1f, 1.6666665459e-1f, 4.1665795894e-2f, 8.3334519073e-3f, 1.3981999507e-3f};
      return c[n];
    } else {
      S factorial = 1;
      for (int i = 2; i <= n; ++i) factorial *= i;
      return 1 / factorial;
    }
  }

  // exp of x <= 0, 0 where the result would be subnormal; NaN stays NaN.
  static IMAE_INLINE Real exp_nonpositive(Real x) {
    const Exponential e = exp_parts(x);
    return choose(x < Simd<S>::kExpLow, Real{}, e.power * e.minus_one + e.power);
  }
  // The same for the sweeps and for any x, two thirds of the instructions: to 2e-7 up to |x| = 20, 4e-7 up to 87 in
  // float. Where it overflows it is infinity, or exp(88) at least.
  static IMAE_INLINE Real exp_sweep(Real x) {
    if constexpr (sizeof(S) == 8) {
      return exp(x);
    } else {
#if IMAE_VECTOR_BYTES == 64 && defined(IMAE_X86)
      x = bit_cast<Real>(_mm512_max_ps(_mm512_set1_ps(-150), bit_cast<__m512>(x)));  // NaN stays NaN
#elif IMAE_VECTOR_BYTES == 32 && defined(IMAE_X86)
      x = bit_cast<Real>(_mm256_min_ps(_mm256_set1_ps(Simd<S>::kExpHigh), bit_cast<__m256>(x)));  // here, too
      x = bit_cast<Real>(_mm256_max_ps(_mm256_set1_ps(-88), bit_cast<__m256>(x)));  // whose power of 2 is 0 below
#else
      x = x > S(Simd<S>::kExpHigh) ? set(Simd<S>::kExpHigh) : x;
#endif
      constexpr S kRound = Simd<S>::kRound + Simd<S>::kBias;  // its low bits are the exponent of 2^0
      const Real shifted = x * S(std::numbers::log2e) + kRound, k = shifted - kRound;
#if IMAE_VECTOR_BYTES == 16
      const Real f = less_log2(x, k);  // a product may be rounded here
#else
      const Real f = x - k * S(std::numbers::ln2);
#endif
      Real p = f * 8.2903020e-3f + 4.1897979e-2f;  // the minimax polynomial of degree 5 that is 1 at 0
      p = p * f + 1.6667637e-1f;
      p = p * f + 4.9999151e-1f;
      p = p * f + 9.9999970e-1f;
      p = p * f + 1.0f;
#if IMAE_VECTOR_BYTES == 64 && defined(IMAE_X86)
      return bit_cast<Real>(_mm512_scalef_ps(bit_cast<__m512>(p), bit_cast<__m512>(k)));
#elif IMAE_VECTOR_BYTES == 32 && defined(IMAE_X86)
      return p * bits_to_real(real_to_bits(shifted) << Simd<S>::kMantissa);
#else
      return x < Simd<S>::kExpLow ? Real{} : p * bits_to_real(real_to_bits(shifted) << Simd<S>::kMantissa);
#endif
    }
  }
  static IMAE_INLINE Real exp(Real x) { return choose(x > Simd<S>::kExpHigh, set(infinity()), exp_nonpositive(x)); }
  static IMAE_INLINE Real expm1(Real x) {
    Real y = expm1_near(x);
    y = choose(x < Simd<S>::kExpLow, set(-1), y);
    return choose(x > Simd<S>::kExpHigh, set(infinity()), y);
  }
  // The same for x between kExpLow and kExpHigh.
  static IMAE_INLINE Real expm1_near(Real x) {
    const Exponential e = exp_parts(x);
    return e.power * e.minus_one + (e.power - S(1));
  }
  // log of x >= 0, x = m 2^k with m in [sqrt(1/2), sqrt(2))
  static IMAE_INLINE Real log(Real x) {
    constexpr Int kFraction = (Int(1) << Simd<S>::kMantissa) - 1;
    const Ints shifted = real_to_bits(x) - Simd<S>::kSqrtHalf;
    const Real m = bits_to_real((shifted & kFraction) + Simd<S>::kSqrtHalf);
    const Real y = log_parts(shifted >> Simd<S>::kMantissa, m - S(1));
    const Ints ordinary = (x > Real{}) & (x < infinity());
    return choose(ordinary, y, choose(x == Real{}, set(-infinity()), x));
  }
  // log(1 + x) of x between -1 and 2^100; NaN stays NaN. 1 + x only says which power of 2 to divide by: what it lost is
  // still in x.
  static IMAE_INLINE Real log1p(Real x) {
    const Ints k = (real_to_bits(x + S(1)) - Simd<S>::kSqrtHalf) >> Simd<S>::kMantissa;
    const Real scale = bits_to_real((Int(Simd<S>::kBias) - k) << Simd<S>::kMantissa);
    return log_parts(k, x * scale + (scale - S(1)));
  }
  // log((1 + f) 2^k), by 2 atanh(f / (2 + f))
  static IMAE_INLINE Real log_parts(Ints exponent, Real f) {
    const Real k = convert<Real>(exponent), t = f / (f + S(2)), t2 = t * t;
    Real sum = set(S(1) / S(2 * Simd<S>::kLogTerms + 1));
#pragma GCC unroll 16
    for (int n = Simd<S>::kLogTerms - 1; n >= 1; --n) sum = sum * t2 + S(1) / S(2 * n + 1);
    return k * Simd<S>::kLn2High + (k * Simd<S>::kLn2Low + (t + t) * (sum * t2 + S(1)));
  }
};

// Lanes of x, then of y, by number.
template <int... kLane, class V>
IMAE_INLINE V shuffle(V x, V y) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(x, y, kLane...);
#else  // GCC 11
  return __builtin_shuffle(x, y, decltype(x < y){kLane...});
#endif
}

// Reduces each of kLanes vectors to one lane of the result: lane l from v[l]. Two vectors merge into one by folding
// the halves of their blocks, until a block is a lane; no vector waits for the reduction of another.
template <int kHalf, class V, class Op, int... kLane>
IMAE_INLINE V fold_blocks(V x, V y, Op op, std::integer_sequence<int, kLane...>) {
  return op(shuffle<(kLane / kHalf * 2 * kHalf + kLane % kHalf)...>(x, y),
            shuffle<(kLane / kHalf * 2 * kHalf + kLane % kHalf + kHalf)...>(x, y));
}
template <int kLanes, int kHalf = kLanes / 2, class V, class Op>
IMAE_INLINE V reduce_each(V* v, Op op) {
  if constexpr (kHalf == 0) {
    return v[0];
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kHalf; ++i)
      v[i] = fold_blocks<kHalf>(v[2 * i], v[2 * i + 1], op, std::make_integer_sequence<int, kLanes>{});
    return reduce_each<kLanes, kHalf / 2>(v, op);
  }
}
// Transposes kLanes vectors: blocks of half their lanes change places, then of a quarter, down to single lanes.
template <int kHalf, class V, int... kLane>
IMAE_INLINE void exchange_blocks(V& x, V& y, std::integer_sequence<int, kLane...>) {
  constexpr int kLanes = sizeof...(kLane);
  const V low = shuffle<(kLane & kHalf ? kLanes + kLane - kHalf : kLane)...>(x, y);
  y = shuffle<(kLane & kHalf ? kLanes + kLane : kLane + kHalf)...>(x, y);
  x = low;
}
template <int kLanes, int kHalf = kLanes / 2, class V>
IMAE_INLINE void transpose(V* v) {
  if constexpr (kHalf > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      if (!(i & kHalf)) exchange_blocks<kHalf>(v[i], v[i + kHalf], std::make_integer_sequence<int, kLanes>{});
    transpose<kLanes, kHalf / 2>(v);
  }
}
template <int kLanes, int kHalf = kLanes / 2, class V, class Op>
IMAE_INLINE auto reduce_one(V v, Op op) {
  if constexpr (kHalf == 0)
    return v[0];
  else
    return reduce_one<kLanes, kHalf / 2>(fold_blocks<kHalf>(v, v, op, std::make_integer_sequence<int, kLanes>{}), op);
}

// Whether a comparison holds in all lanes.
template <class Ints>
IMAE_INLINE bool all_lanes(Ints mask) {
#if IMAE_VECTOR_BYTES == 64 && defined(IMAE_X86)
  if constexpr (sizeof(Ints) == 64) return _mm512_movepi32_mask(bit_cast<__m512i>(mask)) == 0xffff;
#elif IMAE_VECTOR_BYTES == 32 && defined(IMAE_X86)
  if constexpr (sizeof(Ints) == 32) return _mm256_movemask_epi8(bit_cast<__m256i>(mask)) == -1;
#endif
  uint64_t part[sizeof(Ints) / 8], all = ~uint64_t(0);
  __builtin_memcpy(part, &mask, sizeof mask);
#pragma GCC unroll 16
  for (const uint64_t x : part) all &= x;
  return all == ~uint64_t(0);
}

struct Max {
  template <class X>
  IMAE_INLINE X operator()(X x, X y) const {
    return x > y ? x : y;
  }
};
struct Min {
  template <class X>
  IMAE_INLINE X operator()(X x, X y) const {
    return x < y ? x : y;
  }
};
struct Plus {
  template <class X>
  IMAE_INLINE X operator()(X x, X y) const {
    return x + y;
  }
};

}  // namespace imae::IMAE_ISA
