// A row whose classes lie next to one another: vectors run along the classes.
// Reading finds the others' maximum, then their sums; writing reads the row again, from a cache, and stores the
// gradient. A row has at least one vector of classes. The last vector of a sweep ends with the row and overlaps the one
// before.
#pragma once

namespace imae::IMAE_ISA {

constexpr int64_t kChunk = 4096;  // classes; 16 KB of float

template <class S>
IMAE_INLINE S finite_or_zero(S max) {  // so that -infinity less the maximum is -infinity
  return max == -std::numeric_limits<S>::infinity() ? S(0) : max;
}

// Folds body(accumulator, j, vector, mask of the lanes that count) over classes [begin, end) but y, a multiple of the
// lanes from begin on, into four accumulators: the chain of one would wait for every addition.
template <class T, class Acc, class Body, class Merge>
IMAE_INLINE Acc fold_others(const T* z, int64_t begin, int64_t end, int64_t y, Acc start, Body body, Merge merge) {
  using V = Vector<ScalarOf<T>>;
  using Int = typename V::Int;
  constexpr int64_t kLanes = V::kLanes, kUnroll = 4;
  const auto iota = V::iota();
  auto ahead = V::set_int(static_cast<Int>(y - begin)) - iota;  // how far behind j each lane would find the label
  const auto at = [&](Acc acc, int64_t j, Int k) __attribute__((always_inline)) {
    return body(acc, j + k, load(z + j + k), ahead != V::set_int(k));
  };
  Acc a = start, b = start, c = start, d = start;
  int64_t j = begin;
  for (; j + kUnroll * kLanes <= end; j += kUnroll * kLanes, ahead -= Int(kUnroll * kLanes)) {
    a = at(a, j, 0);
    b = at(b, j, kLanes);
    c = at(c, j, 2 * kLanes);
    d = at(d, j, 3 * kLanes);
  }
  for (; j + kLanes <= end; j += kLanes, ahead -= Int(kLanes)) a = at(a, j, 0);
  if (j < end) {  // the last vector ends with the row: lanes that were done already do not count
    const int64_t last = end - kLanes;
    b = body(b, last, load(z + last), (iota != static_cast<Int>(y - last)) & (iota >= static_cast<Int>(j - last)));
  }
  return merge(merge(a, b), merge(c, d));
}

// a vector whose largest lane is the others' maximum
template <class T>
IMAE_INLINE auto max_of_others(const T* z, int64_t begin, int64_t end, int64_t y) {
  using V = Vector<ScalarOf<T>>;
  const auto lowest = V::set(-V::infinity());
  return fold_others(
      z, begin, end, y, lowest,
      [=](typename V::Real acc, int64_t, typename V::Real x, typename V::Ints mask)
          __attribute__((always_inline)) { return V::max(V::select(mask, x, lowest), acc); },
      Max{});
}

template <class X>
struct Sums {
  X exp, plain;  // of exp(z_j - m) and, if wanted, of z_j - m
  friend IMAE_INLINE Sums operator+(Sums x, Sums y) { return {x.exp + y.exp, x.plain + y.plain}; }
};

// vectors whose lanes add up to the others' sums; keep, if not null, receives every exp(z_j - m)
template <bool kSum, class T>
IMAE_INLINE auto sums_of_others(const T* z, int64_t begin, int64_t end, int64_t y, ScalarOf<T> m, ScalarOf<T>* keep) {
  using V = Vector<ScalarOf<T>>;
  using Real = typename V::Real;
  return fold_others(
      z, begin, end, y, Sums<Real>{Real{}, Real{}},
      [=](Sums<Real> acc, int64_t j, Real x, typename V::Ints mask) __attribute__((always_inline)) {
        const Real e = V::exp_sweep(x - m);
        if (keep) store(keep + j, e);
        acc.exp = V::select(mask, acc.exp + e, acc.exp);
        if constexpr (kSum) acc.plain = V::select(mask, acc.plain + (x - m), acc.plain);
        return acc;
      },
      Plus{});
}

template <class S>
struct RowSums {
  S max;  // of the others, 0 for -infinity
  Sums<S> sums;
};

// A long row, chunk by chunk: one pass over memory, with the sums so far carried over to a new maximum.
template <bool kSum, class T>
IMAE_INLINE RowSums<ScalarOf<T>> read_long_row(const T* z, int64_t C, int64_t y) {
  using S = ScalarOf<T>;
  RowSums<S> all{-std::numeric_limits<S>::infinity(), {0, 0}};
  for (int64_t begin = 0; begin < C; begin += kChunk) {
    const int64_t end = begin + kChunk < C ? begin + kChunk : C;
    const S own = reduce_one<Vector<S>::kLanes>(max_of_others(z, begin, end, y), Max{});
    const auto lanes = sums_of_others<kSum, T>(z, begin, end, y, finite_or_zero(own), nullptr);
    const Sums<S> next{reduce_one<Vector<S>::kLanes>(lanes.exp, Plus{}),
                       reduce_one<Vector<S>::kLanes>(lanes.plain, Plus{})};
    const S max = all.max > own ? all.max : own, m = finite_or_zero(max);
    const S before = finite_or_zero(all.max) - m, after = finite_or_zero(own) - m;
    all.sums.exp = (all.sums.exp == 0 ? S(0) : all.sums.exp * std::exp(before)) +
                   (next.exp == 0 ? S(0) : next.exp * std::exp(after));
    if constexpr (kSum) {
      const int64_t seen = begin - (y < begin), now = end - begin - (y >= begin && y < end);
      all.sums.plain = (all.sums.plain + S(seen) * before) + (next.plain + S(now) * after);
    }
    all.max = max;
  }
  all.max = finite_or_zero(all.max);
  return all;
}

// from(j): the vector of exp(z_j - max)
template <class T, class From>
IMAE_INLINE void write_row(T* grad, int64_t C, int64_t y, ScalarOf<T> a, ScalarOf<T> b, ScalarOf<T> g_y, From from) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const int64_t full = C / kLanes * kLanes;
  const auto last = from(C - kLanes) * a + b;  // before its lanes may be overwritten
  for (int64_t j = 0; j < full; j += kLanes) store(grad + j, from(j) * a + b);
  store(grad + C - kLanes, last);
  store_one(grad + y, g_y);
}

}  // namespace imae::IMAE_ISA
