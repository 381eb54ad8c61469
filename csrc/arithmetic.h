// The functions that formulas share. M is the arithmetic: M::Real is float or double on a device and a vector of rows
// on a CPU; M::Scalar its element.
#pragma once

#if defined(__CUDACC__)
#define IMAE_HD __host__ __device__ __forceinline__
#else
#define IMAE_HD inline __attribute__((always_inline))
#endif

namespace imae {

// x^q from -log x, with 0^0 = 1
template <class M>
IMAE_HD typename M::Real power(typename M::Real neg_log_x, typename M::Scalar q) {
  return q == 0 ? M::set(1) : M::exp(-q * neg_log_x);
}

// (1 - exp(-q x)) / q of x >= 0, which is x where q x is small
template <class M>
IMAE_HD typename M::Real saturating(typename M::Real x, typename M::Scalar q) {
  using S = typename M::Scalar;
  const auto y = q * x;
  return M::select(y >= M::set(sizeof(S) == 4 ? S(1e-8) : S(1e-16)), -M::expm1(-y) / q, x);
}

// a product that is 0 where x is 0, whatever y is
template <class M>
IMAE_HD typename M::Real product(typename M::Real x, typename M::Real y) {
  return M::select(x == M::set(0), M::set(0), x * y);
}

template <class M>
IMAE_HD typename M::Real chebyshev(const typename M::Scalar* c, int n, typename M::Real x) {
  typename M::Real b1 = M::set(0), b2 = M::set(0), twice = x + x;
  for (int k = n - 1; k > 0; --k) {
    const typename M::Real b = twice * b1 - b2 + c[k];
    b2 = b1;
    b1 = b;
  }
  return x * b1 - b2 + c[0];
}

// c[0] + c[1] x + ...
template <class M>
IMAE_HD typename M::Real polynomial(const typename M::Scalar* c, int n, typename M::Real x) {
  typename M::Real sum = M::set(c[n - 1]);
  for (int k = n - 2; k >= 0; --k) sum = sum * x + c[k];
  return sum;
}

}  // namespace imae
