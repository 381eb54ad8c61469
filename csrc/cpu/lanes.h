// Few classes, or classes that do not lie next to one another: a vector holds one class of kLanes rows.
// Rows that lie next to one another (a strided class dimension) are read and written where they are; others go
// through a transposed tile.
#pragma once

namespace imae::IMAE_ISA {

template <class T>
IMAE_INLINE void read_tile(ScalarOf<T>* tile, const T* z, const View view, int64_t C, Group g) {
  constexpr int kLanes = Vector<ScalarOf<T>>::kLanes;
  for (int l = 0; l < kLanes; ++l) {
    const T* row = z + view.row(g.first + (l < g.end ? l : 0));
    for (int64_t j = 0; j < C; ++j) tile[j * kLanes + l] = load_one(row + j * view.class_stride);
  }
}
template <class T>
IMAE_INLINE void write_tile(const ScalarOf<T>* tile, T* grad, const View view, int64_t C, Group g) {
  constexpr int kLanes = Vector<ScalarOf<T>>::kLanes;
  for (int l = g.begin; l < g.end; ++l) {
    T* row = grad + view.row(g.first + l);
    for (int64_t j = 0; j < C; ++j) store_one(row + j * view.class_stride, tile[j * kLanes + l]);
  }
}

// at(j): the vector of class j; keep(j, vector): its exp(z_j - max); y: each lane's label
template <bool kSum, class S, class At, class Keep>
IMAE_INLINE LaneSums<S> read_lanes(int64_t C, typename Vector<S>::Ints y, At at, Keep keep) {
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  const Real lowest = V::set(-V::infinity());
  LaneSums<S> all{lowest, Real{}, Real{}, Real{}};
  for (int64_t j = 0; j < C; ++j) {
    const Real x = at(j);
    const auto own = y == static_cast<Int>(j);
    all.max = V::max(V::select(own, lowest, x), all.max);
    all.z_y = V::select(own, x, all.z_y);
  }
  all.max = V::select(all.max == lowest, Real{}, all.max);
  for (int64_t j = 0; j < C; ++j) {
    const Real x = at(j) - all.max, e = V::exp_sweep(x);
    const auto own = y == static_cast<Int>(j);
    keep(j, e);
    all.sum_exp += V::select(own, Real{}, e);
    if constexpr (kSum) all.sum += V::select(own, Real{}, x);
  }
  return all;
}

// from(j): the vector of exp(z_j - max) of class j; put(j, vector): its gradient, 0 where the label is -1
template <class S, class From, class Put>
IMAE_INLINE void write_lanes(int64_t C, typename Vector<S>::Ints y, const Coefficients<S>& c, From from, Put put) {
  using V = Vector<S>;
  using Real = typename V::Real;
  const auto live = y >= 0;
  for (int64_t j = 0; j < C; ++j) {
    const Real other = from(j) * c.a + c.b;
    put(j, V::select(live, V::select(y == static_cast<typename V::Int>(j), c.g_y, other), Real{}));
  }
}

}  // namespace imae::IMAE_ISA
