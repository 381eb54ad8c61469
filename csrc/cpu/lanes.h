// Few classes, or classes that do not lie next to one another: a vector holds one class of kLanes rows.
// Rows that lie next to one another (a strided class dimension) are read and written where they are; others go
// through a transposed tile on the stack.
#pragma once

namespace imae::IMAE_ISA {

constexpr int64_t kMaxTile = 64;  // classes

// kLanes rows of a group. In a group that overlaps the one before, the first lanes are done already.
struct Group {
  int64_t first = 0;
  int begin = 0, end = 0;  // the lanes to do; lane l is row first + l
};

template <class T>
struct Tile {
  using V = Vector<ScalarOf<T>>;
  static constexpr int kLanes = V::kLanes;
  alignas(64) ScalarOf<T> at[kMaxTile * kLanes];

  IMAE_INLINE void read(const T* z, const View& view, int64_t C, Group g) {
    for (int l = 0; l < kLanes; ++l) {
      const T* row = z + view.row(g.first + (l < g.end ? l : 0));
      for (int64_t j = 0; j < C; ++j) at[j * kLanes + l] = load_one(row + j * view.class_stride);
    }
  }
  IMAE_INLINE void write(T* grad, const View& view, int64_t C, Group g) const {
    for (int l = g.begin; l < g.end; ++l) {
      T* row = grad + view.row(g.first + l);
      for (int64_t j = 0; j < C; ++j) store_one(row + j * view.class_stride, at[j * kLanes + l]);
    }
  }
};

template <class S>
struct LaneSums {
  using Real = typename Vector<S>::Real;
  Real max, sum_exp, sum, z_y;
};

// at(j): the vector of class j; y: each lane's label
template <bool kSum, class S, class At>
IMAE_INLINE LaneSums<S> read_lanes(int64_t C, typename Vector<S>::Ints y, At at) {
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
    const Real x = at(j) - all.max;
    const auto own = y == static_cast<Int>(j);
    all.sum_exp += V::select(own, Real{}, V::exp_sweep(x));
    if constexpr (kSum) all.sum += V::select(own, Real{}, x);
  }
  return all;
}

// put(j, vector): the gradient of class j; live: the lanes that are not ignored
template <class S, class At, class Put>
IMAE_INLINE void write_lanes(int64_t C, typename Vector<S>::Ints y, typename Vector<S>::Ints live,
                             typename Vector<S>::Real max, typename Vector<S>::Real a, typename Vector<S>::Real b,
                             typename Vector<S>::Real g_y, At at, Put put) {
  using V = Vector<S>;
  using Real = typename V::Real;
  for (int64_t j = 0; j < C; ++j) {
    const Real other = V::exp_sweep(at(j) - max) * a + b;
    put(j, V::select(live, V::select(y == static_cast<typename V::Int>(j), g_y, other), Real{}));
  }
}

}  // namespace imae::IMAE_ISA
