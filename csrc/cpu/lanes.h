// Few classes, or classes that do not lie next to one another: a vector holds one class of kLanes rows.
// Rows that lie next to one another (a strided class dimension) are read and written where they are; others go
// through a transposed tile.
#pragma once
#include "../rows.h"
#include "elements.h"
#include "group.h"
#include "isa.h"
#include "simd.h"
#include "sweeps.h"

namespace imae::IMAE_ISA {

// Whether the classes of the group's rows can be moved as whole vectors. Where a row is shorter than a vector, rows
// must follow one another, and memory must not end within the last one's.
template <class S>
IMAE_INLINE bool whole_vectors(const View view, int64_t N, int64_t C, Group g) {
  constexpr int64_t kLanes = Vector<S>::kLanes;
  if (view.class_stride != 1) return false;
  return C >= kLanes || (view.inner == 1 && view.outer_stride == C && (g.first + g.end - 1) * C + kLanes <= N * C);
}

template <class T>
IMAE_INLINE void read_tile(ScalarOf<T>* tile, const T* z, const View view, int64_t N, int64_t C, Group g) {
  using V = Vector<ScalarOf<T>>;
  constexpr int kLanes = V::kLanes;
  const auto row = [=](int l) { return z + view.row(g.first + (l < g.end ? l : 0)); };
  if (whole_vectors<ScalarOf<T>>(view, N, C, g)) {
    for (int64_t from = 0; from < C; from += kLanes) {
      const int64_t at = C < kLanes || from + kLanes <= C ? from : C - kLanes;
      typename V::Real v[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) v[l] = load(row(l) + at);
      transpose<kLanes>(v);
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) store(tile + (at + j) * kLanes, v[j]);
    }
  } else {
    for (int l = 0; l < kLanes; ++l)
      for (int64_t j = 0; j < C; ++j) tile[j * kLanes + l] = load_one(row(l) + j * view.class_stride);
  }
}
template <class T>
IMAE_INLINE void write_tile(const ScalarOf<T>* tile, T* grad, const View view, int64_t N, int64_t C, Group g) {
  using V = Vector<ScalarOf<T>>;
  constexpr int kLanes = V::kLanes;
  int rows = 0;  // that are written as vectors; where they reach into rows behind them, those are written later
  if (whole_vectors<ScalarOf<T>>(view, N, C, g)) {
    rows = C >= kLanes ? g.end : g.end - static_cast<int>((kLanes - 1) / C);
    for (int64_t from = 0; from < C; from += kLanes) {
      const int64_t at = C < kLanes || from + kLanes <= C ? from : C - kLanes;
      typename V::Real v[kLanes];
#pragma GCC unroll 16
      for (int j = 0; j < kLanes; ++j) v[j] = load(tile + (at + j) * kLanes);
      transpose<kLanes>(v);
      for (int l = 0; l < rows; ++l) store(grad + view.row(g.first + l) + at, v[l]);
    }
  }
  for (int l = rows < 0 ? 0 : rows; l < g.end; ++l) {
    T* row = grad + view.row(g.first + l);
    for (int64_t j = 0; j < C; ++j) store_one(row + j * view.class_stride, tile[j * kLanes + l]);
  }
}

// What classes [j, end) add to the statistics. at(j): the vector of class j; keep(j, vector): its exp(z_j - shift).
// kOut: whether the labels' logits have been taken out, so that all classes count.
template <int kSums, bool kOut, class S, class At, class Keep>
IMAE_INLINE Sums<typename Vector<S>::Real> add_lanes(int64_t j, int64_t end, typename Vector<S>::Ints y,
                                                     Statistics<typename Vector<S>::Real>& of, At at, Keep keep) {
  using V = Vector<S>;
  using Real = typename V::Real;
  const Real shift = of.shift;
  Real z_y = of.z_y;
  Sums<Real> sums{};
  if constexpr (kOut) {
    for (; j < end; ++j) {
      const Real x = at(j) - shift, e = V::exp_sweep(x);
      keep(j, e);
      add_terms<kSums, V>(sums, x, e, All{});
    }
    return sums;
  }
  auto ahead = y - static_cast<typename V::Int>(j);  // how far each lane's label is
  for (; j < end; ++j, ahead -= 1) {
    const Real z = at(j), x = z - shift, e = V::exp_sweep(x);
    const auto own = ahead == 0;
    keep(j, e);
    z_y = V::select(own, z, z_y);
    add_terms<kSums, V>(sums, x, e, ~own);
  }
  of.z_y = z_y;
  return sums;
}

// The statistics of kLanes rows of labels y, relative to a shift.
template <int kSums, bool kOut, class S, class At, class Keep>
IMAE_INLINE Statistics<typename Vector<S>::Real> read_lanes(int64_t C, typename Vector<S>::Ints y,
                                                            typename Vector<S>::Real shift, At at, Keep keep) {
  using Real = typename Vector<S>::Real;
  Statistics<Real> all{shift, Real{}, Real{}, kOut ? shift : Real{}};
  Sums<Real> sums;
  if (C <= kSomeClasses) {
    sums = add_lanes<kSums, kOut, S>(0, C, y, all, at, keep);
  } else {
    Total<Vector<S>> parts;
    for (int64_t j = 0; j < C; j += kSomeClasses)
      parts.add(add_lanes<kSums, kOut, S>(j, C - j < kSomeClasses ? C : j + kSomeClasses, y, all, at, keep));
    sums = parts.all();
  }
  all.sum_exp = sums.exp;
  all.sum = sums.plain;
  all.weighted = sums.weighted;
  all.squares = sums.squares;
  return all;
}

// Each row's maximum; 0 if it is -infinity, so that -infinity less the maximum is -infinity.
template <class S, class At>
IMAE_INLINE typename Vector<S>::Real maximum_of_lanes(int64_t C, At at) {
  using V = Vector<S>;
  const auto lowest = V::set(-V::infinity());
  auto top = lowest;
  for (int64_t j = 0; j < C; ++j) top = V::max(at(j), top);
  return V::select(top == lowest, typename V::Real{}, top);
}

// That of the others.
template <class S, class At>
IMAE_INLINE typename Vector<S>::Real maximum_of_others(int64_t C, typename Vector<S>::Ints y, At at) {
  using V = Vector<S>;
  return maximum_of_lanes<S>(C, [=](int64_t j) __attribute__((always_inline)) {
    return V::select(y == static_cast<typename V::Int>(j), V::set(-V::infinity()), at(j));
  });
}

// from(j): the vector of exp(z_j - shift) of class j; put(j, vector): its gradient, 0 where the label is -1
template <class S, class From, class Put>
IMAE_INLINE void write_lanes(int64_t C, typename Vector<S>::Ints y, const Coefficients<typename Vector<S>::Real>& c,
                             From from, Put put) {
  using V = Vector<S>;
  using Real = typename V::Real;
  const auto live = y >= 0;
  const Real a = c.a, b = c.b, g_y = c.g_y;
  auto ahead = y;
  for (int64_t j = 0; j < C; ++j, ahead -= 1)
    put(j, V::select(live, V::select(ahead == 0, g_y, from(j) * a + b), Real{}));
}

}  // namespace imae::IMAE_ISA
