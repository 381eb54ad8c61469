// A row whose classes lie next to one another: vectors run along the classes, and a row has at least one.
// The last vector of a sweep over the logits or the gradient ends with the row and overlaps the one before.
#pragma once

namespace imae::IMAE_ISA {

template <class S>
IMAE_INLINE S finite_or_zero(S max) {  // so that -infinity less the maximum is -infinity
  return max == -std::numeric_limits<S>::infinity() ? S(0) : max;
}

// Copies classes of a row, as they are computed with, and pads them to whole vectors. The padding and the label, class
// y of these if it is one of them, become -infinity, which counts for no maximum and no sum. Returns a vector whose
// largest lane is the others' maximum. grad: what is written next, fetched meanwhile; z if nothing is.
template <class T>
IMAE_INLINE auto copy_others(ScalarOf<T>* to, const T* z, int64_t count, int64_t y, const T* grad) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  constexpr int64_t kLanes = V::kLanes;
  const Real lowest = V::set(-V::infinity());
  store(to + padded<S>(count) - kLanes, lowest);
  if (count < kLanes) {  // the end of a long row
    for (int64_t j = 0; j < count; ++j)
      if (j != y) to[j] = load_one(z + j);
    return load(to);
  }
  const auto label = V::set_int(static_cast<Int>(y)) - V::iota();
  const auto copy = [&](int64_t j) __attribute__((always_inline)) {
    const Real x = V::select(label != static_cast<Int>(j), load(z + j), lowest);
    __builtin_prefetch(grad + j, 1);
    store(to + j, x);
    return x;
  };
  Real top = lowest;
  for (int64_t j = 0; j + kLanes <= count; j += kLanes) top = V::max(copy(j), top);
  return V::max(copy(count - kLanes), top);
}

template <class X>
struct Sums {
  X exp, plain;  // of exp(z_j - m) and, if wanted, of z_j - m
};

// Replaces copied logits by exp(z_j - m). Returns vectors whose lanes add up to the others' sums.
// next: logits to copy soon, fetched meanwhile.
template <bool kSum, class T>
IMAE_INLINE auto exponentiate(ScalarOf<T>* x, int64_t count, int64_t y, ScalarOf<T> m, const T* next) {
  using V = Vector<ScalarOf<T>>;
  using Real = typename V::Real;
  using Int = typename V::Int;
  Real exp{}, plain{};
  auto index = V::iota();
  for (int64_t j = 0; j < count; j += V::kLanes) {
    __builtin_prefetch(next + j);
    const Real t = load(x + j) - m, e = V::exp_sweep(t);
    store(x + j, e);
    exp += e;
    if constexpr (kSum) {
      const auto others = (index != static_cast<Int>(y)) & (index < static_cast<Int>(count));
      plain += V::select(others, t, Real{});
      index += static_cast<Int>(V::kLanes);
    }
  }
  return Sums<Real>{exp, plain};
}

template <class S>
struct RowSums {
  S max;  // of the others, 0 for -infinity
  Sums<S> sums;
};

// A long row, chunk by chunk: one pass over memory, with the sums so far carried over to a new maximum.
template <bool kSum, class T>
IMAE_INLINE RowSums<ScalarOf<T>> read_long_row(const T* z, int64_t C, int64_t y, ScalarOf<T>* scratch) {
  using S = ScalarOf<T>;
  constexpr int kLanes = Vector<S>::kLanes;
  RowSums<S> all{-std::numeric_limits<S>::infinity(), {0, 0}};
  for (int64_t begin = 0; begin < C; begin += kChunk) {
    const int64_t count = C - begin < kChunk ? C - begin : kChunk;
    const S own = reduce_one<kLanes>(copy_others(scratch, z + begin, count, y - begin, z + begin), Max{});
    const auto lanes = exponentiate<kSum, T>(scratch, count, y - begin, finite_or_zero(own), z + begin + kChunk);
    const Sums<S> now{reduce_one<kLanes>(lanes.exp, Plus{}), reduce_one<kLanes>(lanes.plain, Plus{})};
    const S max = all.max > own ? all.max : own, m = finite_or_zero(max);
    const S before = finite_or_zero(all.max) - m, after = finite_or_zero(own) - m;
    all.sums.exp = (all.sums.exp == 0 ? S(0) : all.sums.exp * std::exp(before)) +
                   (now.exp == 0 ? S(0) : now.exp * std::exp(after));
    if constexpr (kSum) {
      const int64_t seen = begin - (y < begin), added = count - (y >= begin && y < begin + count);
      all.sums.plain = (all.sums.plain + S(seen) * before) + (now.plain + S(added) * after);
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
  for (int64_t j = 0; j + kLanes <= C; j += kLanes) store(grad + j, from(j) * a + b);
  store(grad + C - kLanes, from(C - kLanes) * a + b);
  store_one(grad + y, g_y);
}

}  // namespace imae::IMAE_ISA
