// Several vectors at once. A formula is a chain in which each step waits for the one before, and a chain is longer than
// what a processor looks ahead, so that it finds nothing to do meanwhile: here each step is done for all vectors, and
// then the next step.
#pragma once
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

template <class X>
struct Two {
  X first, second;
};
template <class X>
Two(X, X) -> Two<X>;
template <class X>
constexpr int kVectors = 1;  // in an X
template <class X>
constexpr int kVectors<Two<X>> = 2 * kVectors<X>;

// Clang's comparisons of vectors of double are of `long long`, which is as wide as our integers and another type.
template <class X>
IMAE_INLINE auto ours(X x) {
  if constexpr (!std::is_same_v<long long, int64_t> && std::is_same_v<std::decay_t<decltype(x[0])>, long long>) {
    typedef int64_t Ints __attribute__((vector_size(sizeof(X))));
    return bit_cast<Ints>(x);
  } else {
    return x;
  }
}
template <class X>
IMAE_INLINE Two<X> ours(Two<X> x) {
  return x;
}
#define IMAE_TWO(op)                                                              \
  template <class X>                                                              \
  IMAE_INLINE auto operator op(Two<X> x, Two<X> y) {                              \
    return Two{ours(x.first op y.first), ours(x.second op y.second)};             \
  }                                                                               \
  template <class X, class S, std::enable_if_t<std::is_arithmetic_v<S>, int> = 0> \
  IMAE_INLINE auto operator op(Two<X> x, S y) {                                   \
    return Two{ours(x.first op y), ours(x.second op y)};                          \
  }                                                                               \
  template <class X, class S, std::enable_if_t<std::is_arithmetic_v<S>, int> = 0> \
  IMAE_INLINE auto operator op(S x, Two<X> y) {                                   \
    return Two{ours(x op y.first), ours(x op y.second)};                          \
  }
IMAE_TWO(+)
IMAE_TWO(-)
IMAE_TWO(*)
IMAE_TWO(/)
IMAE_TWO(&)
IMAE_TWO(|)
IMAE_TWO(<<)
IMAE_TWO(>>)
IMAE_TWO(<)
IMAE_TWO(>)
IMAE_TWO(>=)
IMAE_TWO(==)
#undef IMAE_TWO
template <class X>
IMAE_INLINE Two<X> operator-(Two<X> x) {
  return {-x.first, -x.second};
}
template <class Mask, class X>
IMAE_INLINE Two<X> choose(Two<Mask> mask, Two<X> yes, Two<X> no) {
  return {choose(mask.first, yes.first, no.first), choose(mask.second, yes.second, no.second)};
}
template <class To, class X>
IMAE_INLINE To convert(Two<X> x) {
  return {convert<decltype(To::first)>(x.first), convert<decltype(To::second)>(x.second)};
}
template <class To, class X>
IMAE_INLINE To cast_bits(Two<X> x) {
  return {cast_bits<decltype(To::first)>(x.first), cast_bits<decltype(To::second)>(x.second)};
}

// from(k), from(k + 1), ... as one X
template <class X, class From>
IMAE_INLINE X join(int k, From from) {
  if constexpr (kVectors<X> == 1) {
    return from(k);
  } else {
    using Part = decltype(X::first);
    return {join<Part>(k, from), join<Part>(k + kVectors<Part>, from)};
  }
}
// to(k, vector), to(k + 1, vector), ...
template <class X, class To>
IMAE_INLINE void split(const X& x, int k, To to) {
  if constexpr (kVectors<X> == 1) {
    to(k, x);
  } else {
    split(x.first, k, to);
    split(x.second, k + kVectors<decltype(X::first)>, to);
  }
}

// f of each vector
template <class X, class F>
IMAE_INLINE X each_vector(X x, F f) {
  if constexpr (kVectors<X> == 1)
    return f(x);
  else
    return {each_vector(x.first, f), each_vector(x.second, f)};
}

// Four chains fill the time with 32 registers, two with 16.
template <class X>
using Wide = std::conditional_t<IMAE_VECTOR_BYTES == 64, Two<Two<X>>, Two<X>>;
// The arithmetic of vectors of S, as many at once as pays.
template <class S>
using WideVector = Vector<S, Wide<typename Vector<S>::Real>, Wide<typename Vector<S>::Ints>>;
template <class S>
constexpr int kAtOnce = kVectors<typename WideVector<S>::Real>;

}  // namespace imae::IMAE_ISA
