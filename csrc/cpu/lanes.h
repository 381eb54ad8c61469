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

// at(j): the vector of class j; keep(j, vector): its exp(z_j - shift); y: each lane's label
template <int kSums, class S, class At, class Keep>
IMAE_INLINE Statistics<typename Vector<S>::Real> read_lanes(int64_t C, typename Vector<S>::Ints y, At at, Keep keep) {
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  const Real lowest = V::set(-V::infinity());
  Statistics<Real> all{lowest, Real{}, Real{}, Real{}};
  for (int64_t j = 0; j < C; ++j) {
    const Real x = at(j);
    const auto own = y == static_cast<Int>(j);
    all.shift = V::max(V::select(own, lowest, x), all.shift);
    all.z_y = V::select(own, x, all.z_y);
  }
  all.shift = V::select(all.shift == lowest, Real{}, all.shift);
  Sums<Real> some{};
  Total<V> before;
  for (int64_t j = 0;;) {
    for (const int64_t end = C - j < kSomeClasses ? C : j + kSomeClasses; j < end; ++j) {
      const Real x = at(j) - all.shift, e = V::exp_sweep(x);
      const auto own = y == static_cast<Int>(j);
      keep(j, e);
      add_terms<kSums, V>(some, x, e, ~own);
    }
    if (j == C) break;
    before.add(some);
    some = Sums<Real>{};
  }
  if (C > kSomeClasses) {
    before.add(some);
    some = before.all();
  }
  all.sum_exp = some.exp;
  all.sum = some.plain;
  all.weighted = some.weighted;
  all.squares = some.squares;
  return all;
}

// from(j): the vector of exp(z_j - shift) of class j; put(j, vector): its gradient, 0 where the label is -1
template <class S, class From, class Put>
IMAE_INLINE void write_lanes(int64_t C, typename Vector<S>::Ints y, const Coefficients<typename Vector<S>::Real>& c,
                             From from, Put put) {
  using V = Vector<S>;
  using Real = typename V::Real;
  const auto live = y >= 0;
  for (int64_t j = 0; j < C; ++j) {
    const Real other = from(j) * c.a + c.b;
    put(j, V::select(live, V::select(y == static_cast<typename V::Int>(j), c.g_y, other), Real{}));
  }
}

}  // namespace imae::IMAE_ISA
