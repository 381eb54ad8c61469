// Vectors of the instruction set that a file is compiled for, and the arithmetic that formulas.h asks for.
// They are the compiler's own vector types, so that one source serves AVX-512, AVX2, SSE2 and NEON.
// Included by kernels.h of this folder, after the target has been chosen.
#pragma once

#define IMAE_INLINE inline __attribute__((always_inline))

namespace imae::IMAE_ISA {

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

// The M of formulas.h: a Real holds one value for each of kLanes rows.
template <class S>
struct Vector : Simd<S> {
  using typename Simd<S>::Int;
  using Simd<S>::kLanes;
  using Real = typename VectorOf<S, kLanes>::type;
  using Ints = typename VectorOf<Int, kLanes>::type;  // also the type of a comparison: 0 or -1

  static IMAE_INLINE Real set(S x) { return x - Real{}; }
  static IMAE_INLINE Ints set_int(Int x) { return x - Ints{}; }
  static IMAE_INLINE constexpr S infinity() { return std::numeric_limits<S>::infinity(); }
  static IMAE_INLINE Real select(Ints mask, Real yes, Real no) { return mask ? yes : no; }
  static IMAE_INLINE Real max(Real x, Real y) { return x > y ? x : y; }
  static IMAE_INLINE Real min(Real x, Real y) { return x < y ? x : y; }
  static IMAE_INLINE Real abs(Real x) { return bits_to_real(real_to_bits(x) & std::numeric_limits<Int>::max()); }
  static IMAE_INLINE Ints isinf(Real x) { return abs(x) == set(infinity()); }
  static IMAE_INLINE Ints real_to_bits(Real x) { return std::bit_cast<Ints>(x); }
  static IMAE_INLINE Real bits_to_real(Ints x) { return std::bit_cast<Real>(x); }
  static IMAE_INLINE Ints iota() {
    Ints v{};
    for (int l = 0; l < kLanes; ++l) v[l] = l;
    return v;
  }

  struct Exponential {
    Real power, minus_one;  // exp(x) = power + power * minus_one, power = 2^k and |minus_one| < 0.42
  };
  static IMAE_INLINE Exponential exp_parts(Real x) {
    const Real shifted = x * S(std::numbers::log2e) + Simd<S>::kRound, k = shifted - Simd<S>::kRound;
    const Real f = (x - k * Simd<S>::kLn2High) - k * Simd<S>::kLn2Low;
    const Ints exponent = real_to_bits(shifted) + Int(Simd<S>::kBias);  // the low bits of shifted are k
    Real sum = set(coefficient(Simd<S>::kExpTerms));
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

  // exp of x <= 0, 0 where the result would be subnormal; NaN stays NaN. The one in the sweeps.
  static IMAE_INLINE Real exp_nonpositive(Real x) {
    const Exponential e = exp_parts(x);
    return x < Simd<S>::kExpLow ? Real{} : e.power * e.minus_one + e.power;
  }
  static IMAE_INLINE Real exp(Real x) { return x > Simd<S>::kExpHigh ? set(infinity()) : exp_nonpositive(x); }
  static IMAE_INLINE Real expm1(Real x) {
    const Exponential e = exp_parts(x);
    Real y = e.power * e.minus_one + (e.power - S(1));
    y = x < Simd<S>::kExpLow ? set(-1) : y;
    return x > Simd<S>::kExpHigh ? set(infinity()) : y;
  }
  // log of x >= 0 by 2 atanh((m - 1)/(m + 1)), x = m 2^k with m in [sqrt(1/2), sqrt(2))
  static IMAE_INLINE Real log(Real x) {
    constexpr Int kFraction = (Int(1) << Simd<S>::kMantissa) - 1;
    const Ints shifted = real_to_bits(x) - Simd<S>::kSqrtHalf;
    const Real k = __builtin_convertvector(shifted >> Simd<S>::kMantissa, Real);
    const Real m = bits_to_real((shifted & kFraction) + Simd<S>::kSqrtHalf);
    const Real t = (m - S(1)) / (m + S(1)), t2 = t * t;
    Real sum = set(S(1) / S(2 * Simd<S>::kLogTerms + 1));
    for (int n = Simd<S>::kLogTerms - 1; n >= 1; --n) sum = sum * t2 + S(1) / S(2 * n + 1);
    const Real y = k * Simd<S>::kLn2High + (k * Simd<S>::kLn2Low + (t + t) * (sum * t2 + S(1)));
    const Ints ordinary = (x > Real{}) & (x < infinity());
    return ordinary ? y : (x == Real{} ? set(-infinity()) : x);
  }
  // log(1 + x) of x > -1, finite; the quotient restores what 1 + x lost
  static IMAE_INLINE Real log1p(Real x) {
    const Real w = x + S(1), d = w - S(1);
    return d == Real{} ? x : log(w) * (x / d);
  }
};

template <int kLanes, class S, class V, class Op>
IMAE_INLINE S reduce(V v, Op op) {
  if constexpr (kLanes == 2) {
    return op(S(v[0]), S(v[1]));
  } else {
    typename VectorOf<S, kLanes / 2>::type low, high;
    __builtin_memcpy(&low, &v, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return reduce<kLanes / 2, S>(op(low, high), op);
  }
}
template <class S>
IMAE_INLINE S reduce_max(typename Vector<S>::Real v) {
  return reduce<Vector<S>::kLanes, S>(v, [](auto x, auto y) __attribute__((always_inline)) { return x > y ? x : y; });
}
template <class S>
IMAE_INLINE S reduce_sum(typename Vector<S>::Real v) {
  return reduce<Vector<S>::kLanes, S>(v, [](auto x, auto y) __attribute__((always_inline)) { return x + y; });
}

}  // namespace imae::IMAE_ISA
