// A row whose classes lie next to one another: vectors run along the classes, and a row has at least one.
// Exponentials are kept in scratch memory, a slot for each vector: two vectors as a Pair orders them while there are
// two, then single ones. The last of those ends with the row and may repeat classes of the one before.
#pragma once
#include "elements.h"
#include "group.h"
#include "isa.h"
#include "long_sum.h"
#include "simd.h"

namespace imae::IMAE_ISA {

// two(sum, j): adds classes from j, as a Pair; one(sum, j, at): those from at, of which the ones from j are new.
// Each returns the sum: the compiler keeps one that a lambda captures in memory.
template <class T, class Sum, class Two, class One>
IMAE_INLINE Sum fold_vectors(int64_t count, Sum sum, Two two, One one) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  int64_t j = 0;
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) sum = two(sum, j);
  for (; j < count; j += kLanes) sum = one(sum, j, j + kLanes <= count ? j : count - kLanes);
  return sum;
}

// Which lanes are new, and not the label's.
template <class T>
struct NotLabel {
  using V = Vector<ScalarOf<T>>;
  using Int = typename V::Int;
  typename V::Ints label;

  typename V::Ints ahead;  // the label, of the first class of each lane of a Pair

  explicit IMAE_INLINE NotLabel(int64_t y)
      : label(V::set_int(static_cast<Int>(y))), ahead(label - V::iota() * Pair<T>::kStep) {}
  IMAE_INLINE auto first(int64_t j) const { return ahead != static_cast<Int>(j); }
  IMAE_INLINE auto second(int64_t j) const { return first(j + Pair<T>::kNext); }
  IMAE_INLINE auto last(int64_t j, int64_t at) const {
    return (label - V::iota() != static_cast<Int>(at)) & (V::iota() >= static_cast<Int>(j - at));
  }
};

// Of exp(z_j - m), and of what else is wanted: see Sum. What is not, stays 0.
template <class X>
struct Sums {
  X exp{}, plain{}, weighted{}, squares{};
};
template <class X>
IMAE_INLINE Sums<X> operator+(const Sums<X>& x, const Sums<X>& y) {
  return {x.exp + y.exp, x.plain + y.plain, x.weighted + y.weighted, x.squares + y.squares};
}

// Says of a vector of classes that all of them count.
struct All {};

// Adds the terms of classes with z_j - m = x and exp(x) = e, in the lanes that count.
template <int kSums, class V, class Counts>
IMAE_INLINE void add_terms(Sums<typename V::Real>& sums, typename V::Real x, typename V::Real e, Counts counts) {
  const auto add = [=](typename V::Real& sum, typename V::Real term) __attribute__((always_inline)) {
    if constexpr (std::is_same_v<Counts, All>)
      sum += term;
    else
      sum = V::select(counts, sum + term, sum);
  };
  add(sums.exp, e);
  if constexpr (kSums & kPlain) add(sums.plain, x);
  if constexpr (kSums & kWeighted) {
    constexpr typename V::Scalar kLowest = -1e30;  // where e is 0: 0 times -infinity would be NaN
    add(sums.weighted, e * V::max(x, V::set(kLowest)));
  }
  if constexpr (kSums & kSquares) add(sums.squares, e * e);
}

// Those of a long row, from its parts.
template <class V>
class Total {
  using Real = typename V::Real;

 public:
  IMAE_INLINE void add(const Sums<Real>& part) {
    exp_.add(part.exp);
    plain_.add(part.plain);
    weighted_.add(part.weighted);
    squares_.add(part.squares);
  }
  IMAE_INLINE Sums<Real> all() const { return {exp_.all(), plain_.all(), weighted_.all(), squares_.all()}; }

 private:
  LongSum<V> exp_, plain_, weighted_, squares_;
};

// What is done beside, line by line, while a short row is read: logits that are read soon and the row's gradient are
// fetched into the nearest cache.
template <class T>
struct BesideShort {
  static constexpr bool kLong = false;
  const T *soon, *grad;
  IMAE_INLINE void some(int64_t j, int64_t) const {
    __builtin_prefetch(soon + j);
    __builtin_prefetch(grad + j, 1);
  }
};
// While a long row is read: what is read later, and what is written, are fetched into the next cache.
template <class T>
struct BesideLong {
  static constexpr bool kLong = true;
  const T *soon, *later, *grad;
  IMAE_INLINE void some(int64_t j, int64_t) const {
    __builtin_prefetch(soon + j);
    __builtin_prefetch(later + j, 0, 2);
    __builtin_prefetch(grad + j, 0, 2);
  }
  BesideLong part(int64_t begin, int64_t at) const { return {soon + begin, later + begin, grad + at}; }
};
// While a row is read whose exponentials take the place of a gradient that waits there.
template <class T>
struct BesideSending {
  static constexpr bool kLong = true;
  const T *soon, *later;
  Sending<T> row;
  IMAE_INLINE void some(int64_t j, int64_t count) const {
    __builtin_prefetch(soon + j);
    __builtin_prefetch(later + j, 0, 2);
    row.some(j, count);
  }
  BesideSending part(int64_t begin, int64_t) const {
    return {soon + begin, later + begin, {row.to + begin, row.from + begin, row.end - begin}};
  }
};

// Keeps exp(z_j - m). Returns vectors whose lanes add up to the others' sums. Only where the label is, lanes are asked
// whether they count: that takes a tenth of the time.
template <int kSums, class T, class Beside>
IMAE_INLINE auto exponentiate(ScalarOf<T>* to, const T* z, int64_t count, int64_t y, ScalarOf<T> m, Beside beside) {
  using V = Vector<ScalarOf<T>>;
  using Real = typename V::Real;
  constexpr int64_t kLanes = V::kLanes, kLine = 64 / sizeof(T), kStep = kLine < 2 * kLanes ? kLine : 2 * kLanes;
  struct Two {
    Sums<Real> first, second;
  };
  const NotLabel<T> others(y);
  const auto keep = [=](Sums<Real> sums, int64_t j, Real z_j, auto counts) __attribute__((always_inline)) {
    const Real x = z_j - m, e = V::exp_sweep(x);
    store(to + j, e);
    add_terms<kSums, V>(sums, x, e, counts);
    return sums;
  };
  const auto keep_two = [=](Two sums, int64_t j, auto first, auto second) __attribute__((always_inline)) {
    for (int64_t k = j; k < j + 2 * kLanes; k += kStep) beside.some(k, kStep);
    const Pair<T> x = load_pair(z + j);
    return Two{keep(sums.first, j, x.first, first), keep(sums.second, j + kLanes, x.second, second)};
  };
  Sums<Real> all{}, last{};
  int64_t j = 0;
  for (const int64_t pairs = count / (2 * kLanes) * (2 * kLanes); j < pairs;) {
    const int64_t end = j + kSome * 2 * kLanes < pairs ? j + kSome * 2 * kLanes : pairs;
    Two some{};
    if (j <= y && y < end)
      for (; j < end; j += 2 * kLanes) some = keep_two(some, j, others.first(j), others.second(j));
    else
      for (; j < end; j += 2 * kLanes) some = keep_two(some, j, All{}, All{});
    all = all + (some.first + some.second);
  }
  for (; j < count; j += kLanes) {
    if constexpr (Beside::kLong) beside.some(j, kLanes);
    const int64_t at = j + kLanes <= count ? j : count - kLanes;
    last = keep(last, j, load(z + at), others.last(j, at));
  }
  return all + last;
}

// exponentiate() of a row of any length, in parts. Where kept is false, a part replaces the one before.
template <int kSums, class T, class Beside>
__attribute__((noinline)) Sums<RealOf<T>> exponentiate_parts(ScalarOf<T>* to, bool kept, const T* z, int64_t C,
                                                             int64_t y, ScalarOf<T> m, Beside beside) {
  if (C <= kPart) return exponentiate<kSums>(to, z, C, y, m, beside);
  Total<Vector<ScalarOf<T>>> row;
  for (int64_t begin = 0; begin < C; begin += kPart) {
    const int64_t at = kept ? begin : 0;
    row.add(exponentiate<kSums>(to + at, z + begin, C - begin < kPart ? C - begin : kPart, y - begin, m,
                                beside.part(begin, at)));
  }
  return row.all();
}

// The same with what is to be done beside.
template <int kSums, class T>
IMAE_INLINE Sums<RealOf<T>> exponentiate_row(ScalarOf<T>* to, bool kept, const T* z, int64_t C, int64_t y,
                                             ScalarOf<T> m, BesideLong<T> beside, Sending<T> row) {
  if constexpr (sizeof(T) > 2)
    if (row.end > 0)
      return exponentiate_parts<kSums>(to, kept, z, C, y, m, BesideSending<T>{beside.soon, beside.later, row});
  if (is_long<T>(C)) return exponentiate_parts<kSums>(to, kept, z, C, y, m, beside);
  return exponentiate<kSums>(to, z, C, y, m, BesideShort<T>{beside.soon, beside.grad});
}

// The others' maximum; -infinity if there are none.
template <class T>
IMAE_INLINE ScalarOf<T> maximum(const T* z, int64_t count, int64_t y) {
  using V = Vector<ScalarOf<T>>;
  using Real = typename V::Real;
  const NotLabel<T> others(y);
  const auto top = fold_vectors<T>(
      count, V::set(-V::infinity()),
      [=](Real top, int64_t j) __attribute__((always_inline)) {
        const Pair<T> x = load_pair(z + j);
        top = V::select(others.first(j), V::max(x.first, top), top);
        return V::select(others.second(j), V::max(x.second, top), top);
      },
      [=](Real top, int64_t j, int64_t at)
          __attribute__((always_inline)) { return V::select(others.last(j, at), V::max(load(z + at), top), top); });
  return reduce_one<V::kLanes>(top, Max{});
}

template <class S>
IMAE_INLINE S finite_or_zero(S max) {  // so that -infinity less the maximum is -infinity
  return max == -std::numeric_limits<S>::infinity() ? S(0) : max;
}

// Any row, in two sweeps.
template <int kSums, class T>
IMAE_INLINE Statistics<ScalarOf<T>> read_row(ScalarOf<T>* to, bool kept, const T* z, int64_t C, int64_t y) {
  constexpr int kLanes = Vector<ScalarOf<T>>::kLanes;
  const ScalarOf<T> max = finite_or_zero(maximum(z, C, y));
  const auto sums =
      exponentiate_parts<kSums>(to, kept, z, C, y, max, BesideLong<T>{z, z, reinterpret_cast<const T*>(to)});
  return {max, reduce_one<kLanes>(sums.exp, Plus{}), reduce_one<kLanes>(sums.plain, Plus{}), load_one(z + y)};
}

// f(two, one), the two functions that give a row's exponentials to write_row: kept ones, or, without, of the logits.
template <class T, class F>
IMAE_INLINE void with_exponentials(const ScalarOf<T>* kept, const T* z, ScalarOf<T> shift, F f) {
  using V = Vector<ScalarOf<T>>;
  if (kept)
    f([=](int64_t j) __attribute__((always_inline)) { return Pair<T>{load(kept + j), load(kept + j + V::kLanes)}; },
      [=](int64_t j, int64_t) __attribute__((always_inline)) { return load(kept + j); });
  else
    f(
        [=](int64_t j) __attribute__((always_inline)) {
          const Pair<T> x = load_pair(z + j);
          return Pair<T>{V::exp_sweep(x.first - shift), V::exp_sweep(x.second - shift)};
        },
        [=](int64_t, int64_t at) __attribute__((always_inline)) { return V::exp_sweep(load(z + at) - shift); });
}

// two(j), one(j, at): the exponentials
template <class T, class Two, class One>
IMAE_INLINE void write_row(T* grad, int64_t C, int64_t y, ScalarOf<T> a, ScalarOf<T> b, ScalarOf<T> g_y, Two two,
                           One one) {
  // The last vector may overlap the one before. Where the gradient is written over the logits, it is read before.
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const int64_t whole = C / kLanes * kLanes;
  const RealOf<T> last = whole < C ? one(whole, C - kLanes) : RealOf<T>{};
  fold_vectors<T>(
      C, 0,
      [=](int, int64_t j) __attribute__((always_inline)) {
        const Pair<T> e = two(j);
        store_pair(grad + j, Pair<T>{e.first * a + b, e.second * a + b});
        return 0;
      },
      [=](int, int64_t j, int64_t at) __attribute__((always_inline)) {
        store(grad + at, (at == j ? one(j, at) : last) * a + b);
        return 0;
      });
  store_one(grad + y, g_y);
}

}  // namespace imae::IMAE_ISA
