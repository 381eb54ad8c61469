// A row whose classes lie next to one another: vectors run along the classes.
// read_row:  one pass over memory (a chunk is swept twice while it is in the first-level cache)
// write_row: reads the row again, from a cache, and writes the gradient
// A row has at least one vector of classes. The last vector of a sweep ends with the row and overlaps the one before.
#pragma once

namespace imae::IMAE_ISA {

constexpr int64_t kChunk = 4096;  // classes; 16 KB of float

template <class T>
struct RowSums {
  using S = ScalarOf<T>;
  S max, sum_exp, sum;
};

template <class S>
IMAE_INLINE S finite_or_zero(S max) {  // so that -infinity less the maximum is -infinity
  return max == -std::numeric_limits<S>::infinity() ? S(0) : max;
}

// Calls body(vector, mask of the lanes that count) for classes [begin, end) but y; begin is a multiple of the lanes.
template <class T, class Body>
IMAE_INLINE void for_others(const T* z, int64_t begin, int64_t end, int64_t y, Body body) {
  using V = Vector<ScalarOf<T>>;
  using Int = typename V::Int;
  const auto iota = V::iota();
  const int64_t full = begin + (end - begin) / V::kLanes * V::kLanes;
  auto away = V::set_int(static_cast<Int>(begin - y)) + iota;  // class - y, in each lane
  for (int64_t j = begin; j < full; j += V::kLanes, away += Int(V::kLanes)) body(load(z + j), away != Int(0));
  if (full < end) {
    const int64_t j = end - V::kLanes;
    away = V::set_int(static_cast<Int>(j - y)) + iota;
    body(load(z + j), (away != Int(0)) & (iota >= static_cast<Int>(full - j)));
  }
}

template <bool kSum, class T>
IMAE_INLINE RowSums<T> read_chunk(const T* z, int64_t begin, int64_t end, int64_t y) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Real lowest = V::set(-V::infinity());
  Real top = lowest;
  for_others(z, begin, end, y,
             [&](Real x, auto mask) __attribute__((always_inline)) { top = V::max(V::select(mask, x, lowest), top); });
  const S max = reduce_max<S>(top), m = finite_or_zero(max);
  Real sum_exp{}, sum{};
  for_others(z, begin, end, y, [&](Real x, auto mask) __attribute__((always_inline)) {
    sum_exp += V::select(mask, V::exp_nonpositive(x - m), Real{});
    if constexpr (kSum) sum += V::select(mask, x - m, Real{});
  });
  return {max, reduce_sum<S>(sum_exp), kSum ? reduce_sum<S>(sum) : S(0)};
}

// others' maximum (0 for -infinity), and the sums relative to it
template <bool kSum, class T>
IMAE_INLINE RowSums<T> read_row(const T* z, int64_t C, int64_t y) {
  using S = ScalarOf<T>;
  RowSums<T> all = read_chunk<kSum>(z, 0, C < kChunk ? C : kChunk, y);
  for (int64_t begin = kChunk; begin < C; begin += kChunk) {
    int64_t end = begin + kChunk < C ? begin + kChunk : C;
    const RowSums<T> next = read_chunk<kSum>(z, begin, end, y);
    const S max = all.max > next.max ? all.max : next.max, m = finite_or_zero(max);
    const S before = finite_or_zero(all.max) - m, after = finite_or_zero(next.max) - m;
    all.sum_exp = (all.sum_exp == 0 ? S(0) : all.sum_exp * std::exp(before)) +
                  (next.sum_exp == 0 ? S(0) : next.sum_exp * std::exp(after));
    if constexpr (kSum) {
      const int64_t seen = begin - (y < begin), now = end - begin - (y >= begin && y < end);
      all.sum = (all.sum + S(seen) * before) + (next.sum + S(now) * after);
    }
    all.max = max;
  }
  all.max = finite_or_zero(all.max);
  return all;
}

template <class T>
IMAE_INLINE void write_row(const T* z, T* grad, int64_t C, int64_t y, ScalarOf<T> max, ScalarOf<T> a, ScalarOf<T> b,
                           ScalarOf<T> g_y) {
  using V = Vector<ScalarOf<T>>;
  const auto write = [=](int64_t j) __attribute__((always_inline)) {
    store(grad + j, V::exp_nonpositive(load(z + j) - max) * a + b);
  };
  const int64_t full = C / V::kLanes * V::kLanes;
  for (int64_t j = 0; j < full; j += V::kLanes) write(j);
  if (full < C) write(C - V::kLanes);
  store_one(grad + y, g_y);
}

}  // namespace imae::IMAE_ISA
