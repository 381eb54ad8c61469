// The CPU kernels for one instruction set. Each file that includes this defines
//   IMAE_ISA           the namespace, so that the copies do not meet
//   IMAE_VECTOR_BYTES  16, 32 or 64
// and has already included the standard headers and chosen the target.
//
// Rows are taken in groups. A group's softmax sums are gathered into vectors with a lane for each row, the formulas
// are evaluated once for the whole group, and its gradient is written while its logits are still in the cache.
#pragma once

#include "../kernels.h"
#include "simd.h"
#include "elements.h"
#include "sweeps.h"
#include "lanes.h"

namespace imae::IMAE_ISA {

constexpr int64_t kLaneClasses = 16;        // up to this many classes a lane for each row is faster
constexpr int64_t kGroupBytes = 64 * 1024;  // of logits as they are computed with: they stay in a near cache

enum class Path { kAlong, kAcross, kTile };  // vectors along the classes; across adjacent rows; through a tile

template <class T>
struct Plan {
  static constexpr int kLanes = Vector<ScalarOf<T>>::kLanes;
  Path path;
  bool in_place = true;
  int64_t rows = kLanes, groups_per_outer = 0;  // rows in a group

  explicit IMAE_INLINE Plan(const Rows& r) {
    const View &z = r.logits_view, &g = r.grad_view;
    const bool both = r.grad != nullptr;
    const bool along = z.class_stride == 1 && (!both || g.class_stride == 1) && r.C >= kLanes;
    if (along && r.C > kLaneClasses) {
      path = Path::kAlong;
      const int64_t fit = kGroupBytes / (r.C * int64_t(sizeof(ScalarOf<T>)));
      rows = fit < 1 ? 1 : fit < kLanes ? fit : kLanes;
    } else if (z.inner_stride == 1 && (!both || g.inner_stride == 1) && z.inner >= kLanes && z.inner > 1) {
      path = Path::kAcross;
      groups_per_outer = (z.inner + kLanes - 1) / kLanes;
    } else {
      path = Path::kTile;
      in_place = r.C <= kMaxTile;
    }
  }
  IMAE_INLINE int64_t count(const Rows& r) const {
    return path == Path::kAcross ? r.N / r.logits_view.inner * groups_per_outer : (r.N + rows - 1) / rows;
  }
  IMAE_INLINE Group group(const Rows& r, int64_t i) const {
    if (path != Path::kAcross) {
      const int64_t first = i * rows;
      return {first, 0, static_cast<int>(r.N - first < rows ? r.N - first : rows)};
    }
    const int64_t outer = i / groups_per_outer, inner = i % groups_per_outer * kLanes, D = r.logits_view.inner;
    const int64_t shift = inner + kLanes > D ? inner + kLanes - D : 0;
    return {outer * D + inner - shift, static_cast<int>(shift), kLanes};
  }
};

template <class S>
struct Labels {
  using V = Vector<S>;
  typename V::Ints y, live;  // -1 where the row is ignored or not there
};

template <class S>
IMAE_INLINE Labels<S> read_labels(const Rows& r, Group g) {
  using V = Vector<S>;
  Labels<S> t{V::set_int(-1), V::set_int(0)};
  for (int l = g.begin; l < g.end; ++l) {
    const int64_t y = r.label(g.first + l);
    if (y == r.ignore_index) continue;
    t.y[l] = static_cast<typename V::Int>(y);
    t.live[l] = -1;
  }
  return t;
}

// What a row's gradient is made of; saved for Backward in this order.
template <class S>
struct Coefficients {
  typename Vector<S>::Real max, a, b, g_y;
};

// Where reading leaves every exp(z_j - max) of a group, for writing to go on from: in the gradient itself, or beside
// it if the gradient's type would round them.
template <class T>
struct Kept {
  using S = ScalarOf<T>;
  static constexpr bool kBeside = sizeof(T) != sizeof(S);
  static constexpr int64_t kLanes = Vector<S>::kLanes;
  alignas(64) S at[kBeside ? kGroupBytes / sizeof(S) + kLanes * kLanes : 1];

  static IMAE_INLINE bool worth(const Rows& r) { return r.grad != nullptr && r.C <= kChunk; }
  IMAE_INLINE S* row(const Rows& r, Group g, int l) {
    if constexpr (kBeside)
      return at + l * ((r.C + kLanes - 1) / kLanes * kLanes);
    else
      return static_cast<S*>(r.grad) + r.grad_view.row(g.first + l);
  }
};

// kept: null if nothing was kept
template <class T>
IMAE_INLINE void write_group(const Rows& r, const Plan<T>& plan, Group g, const Labels<ScalarOf<T>>& t,
                             const Coefficients<ScalarOf<T>>& c, const Tile<T>& tile, Kept<T>* kept) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const T* logits = static_cast<const T*>(r.logits);
  T* grad = static_cast<T*>(r.grad);
  if (plan.path == Path::kAlong) {
    for (int l = g.begin; l < g.end; ++l) {
      T* row = grad + r.grad_view.row(g.first + l);
      const T* z = logits + r.logits_view.row(g.first + l);
      const S max = c.max[l];
      if (!t.live[l])
        __builtin_memset(row, 0, r.C * sizeof(T));
      else if (kept)
        write_row(row, r.C, t.y[l], c.a[l], c.b[l], c.g_y[l],
                  [e = kept->row(r, g, l)](int64_t j) __attribute__((always_inline)) { return load(e + j); });
      else
        write_row(row, r.C, t.y[l], c.a[l], c.b[l], c.g_y[l],
                  [=](int64_t j) __attribute__((always_inline)) { return V::exp_sweep(load(z + j) - max); });
    }
  } else if (plan.path == Path::kAcross) {
    const T* z = logits + r.logits_view.row(g.first);
    T* to = grad + r.grad_view.row(g.first);
    write_lanes<S>(
        r.C, t.y, t.live, c.max, c.a, c.b, c.g_y,
        [=](int64_t j) __attribute__((always_inline)) { return load(z + j * r.logits_view.class_stride); },
        [=](int64_t j, Real x) __attribute__((always_inline)) {
          T* at = to + j * r.grad_view.class_stride;
          if (g.begin == 0)
            store(at, x);
          else
            for (int l = g.begin; l < g.end; ++l) store_one(at + l, x[l]);
        });
  } else {
    Tile<T> out;
    write_lanes<S>(
        r.C, t.y, t.live, c.max, c.a, c.b, c.g_y,
        [&](int64_t j) __attribute__((always_inline)) { return load(tile.at + j * V::kLanes); },
        [&](int64_t j, Real x) __attribute__((always_inline)) { store(out.at + j * V::kLanes, x); });
    out.write(grad, r.grad_view, r.C, g);
  }
}

template <bool kSum, class T>
IMAE_INLINE LaneSums<ScalarOf<T>> read_along(const Rows& r, Group g, const Labels<ScalarOf<T>>& t, Kept<T>* kept) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  LaneSums<S> all{V::set(0), V::set(1), V::set(0), V::set(0)};
  const auto row = [&](int l) __attribute__((always_inline)) {
    return static_cast<const T*>(r.logits) + r.logits_view.row(g.first + l);
  };
  for (int l = g.begin; l < g.end; ++l)
    if (t.live[l]) all.z_y[l] = load_one(row(l) + t.y[l]);
  if (r.C > kChunk) {
    for (int l = g.begin; l < g.end; ++l) {
      if (!t.live[l]) continue;
      const RowSums<S> one = read_long_row<kSum>(row(l), r.C, t.y[l]);
      all.max[l] = one.max;
      all.sum_exp[l] = one.sums.exp;
      all.sum[l] = one.sums.plain;
    }
    return all;
  }
  // Short rows: first the whole group's maxima, then its sums, so that no row waits for its own reduction.
  Real top[V::kLanes] = {}, exp[V::kLanes] = {}, plain[V::kLanes] = {};
  for (int l = g.begin; l < g.end; ++l)
    if (t.live[l]) top[l] = max_of_others(row(l), 0, r.C, t.y[l]);
  all.max = reduce_each<V::kLanes>(top, Max{});
  all.max = V::select(all.max == V::set(-V::infinity()), Real{}, all.max);
  for (int l = g.begin; l < g.end; ++l) {
    if (!t.live[l]) continue;
    const auto sums = sums_of_others<kSum>(row(l), 0, r.C, t.y[l], all.max[l], kept ? kept->row(r, g, l) : nullptr);
    exp[l] = sums.exp;
    plain[l] = sums.plain;
  }
  all.sum_exp = reduce_each<V::kLanes>(exp, Plus{});
  if constexpr (kSum) all.sum = reduce_each<V::kLanes>(plain, Plus{});
  return all;
}

template <bool kSum, class T>
IMAE_INLINE LaneSums<ScalarOf<T>> read_group(const Rows& r, const Plan<T>& plan, Group g, const Labels<ScalarOf<T>>& t,
                                             Tile<T>& tile, Kept<T>* kept) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  const T* logits = static_cast<const T*>(r.logits);
  if (plan.path == Path::kAlong) {
    return read_along<kSum, T>(r, g, t, kept);
  }
  if (plan.path == Path::kAcross) {
    const T* z = logits + r.logits_view.row(g.first);
    const int64_t stride = r.logits_view.class_stride;
    return read_lanes<kSum, S>(r.C, t.y,
                               [=](int64_t j) __attribute__((always_inline)) { return load(z + j * stride); });
  }
  tile.read(logits, r.logits_view, r.C, g);
  return read_lanes<kSum, S>(r.C, t.y,
                             [&](int64_t j) __attribute__((always_inline)) { return load(tile.at + j * V::kLanes); });
}

// One copy for all element types: the formulas are most of the code.
template <class S>
__attribute__((noinline)) void evaluate_group(const Forward& f, const LaneSums<S>& sums, Outcome<Vector<S>>& result) {
  result = evaluate<Vector<S>>(f.loss->as<S>(), {sums.max, sums.sum_exp, sums.sum}, sums.z_y, static_cast<S>(f.C));
}

template <bool kSum, class T>
IMAE_INLINE void forward_group(const Forward& f, const Plan<T>& plan, int64_t index, Kept<T>* kept) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Group g = plan.group(f, index);
  const Labels<S> t = read_labels<S>(f, g);
  Tile<T> tile;
  const LaneSums<S> sums = read_group<kSum>(f, plan, g, t, tile, kept);
  Outcome<V> o;
  evaluate_group<S>(f, sums, o);
  Real w = V::set(1);
  if (f.class_weight)
    for (int l = g.begin; l < g.end; ++l)
      if (t.live[l]) w[l] = static_cast<const S*>(f.class_weight)[t.y[l]];
  const Real value = V::select(t.live, o.value * w, Real{}), weight = V::select(t.live, o.weight, Real{});
  const Coefficients<S> c{sums.max, o.a * w, o.b * w, o.g_y * w};
  double value_sum = 0, weight_sum = 0;
  for (int l = g.begin; l < g.end; ++l) {
    const int64_t i = g.first + l;
    value_sum += value[l];
    weight_sum += double(weight[l]) * w[l];
    if (f.value) static_cast<S*>(f.value)[i] = value[l];
    if (f.weight) static_cast<S*>(f.weight)[i] = weight[l];
    if (f.p) static_cast<S*>(f.p)[i] = t.live[l] ? o.p[l] : S(0);
    if (f.coefficients) {
      S* to = static_cast<S*>(f.coefficients) + 4 * i;
      to[0] = c.max[l], to[1] = c.a[l], to[2] = c.b[l], to[3] = c.g_y[l];
    }
  }
  if (f.value_sums) f.value_sums[index] = value_sum;
  if (f.weight_sums) f.weight_sums[index] = weight_sum;
  const S scale = static_cast<S>(f.scale);
  if (f.grad) write_group<T>(f, plan, g, t, {c.max, c.a * scale, c.b * scale, c.g_y * scale}, tile, kept);
}

template <class T>
IMAE_INLINE void backward_group(const Backward& b, const Plan<T>& plan, int64_t index) {
  using S = ScalarOf<T>;
  const Group g = plan.group(b, index);
  const Labels<S> t = read_labels<S>(b, g);
  const S divisor = b.divisor ? *static_cast<const S*>(b.divisor) : S(1);
  Coefficients<S> c{};
  for (int l = g.begin; l < g.end; ++l) {
    const int64_t i = g.first + l;
    const S* from = static_cast<const S*>(b.coefficients) + 4 * i;
    const S by = static_cast<const S*>(b.grad_output)[b.grad_output_is_scalar ? 0 : i] / divisor;
    c.max[l] = from[0], c.a[l] = from[1] * by, c.b[l] = from[2] * by, c.g_y[l] = from[3] * by;
  }
  Tile<T> tile;
  if (plan.path == Path::kTile) tile.read(static_cast<const T*>(b.logits), b.logits_view, b.C, g);
  write_group<T>(b, plan, g, t, c, tile, nullptr);
}

template <class T>
void forward(const Forward& f, int64_t begin, int64_t end) {
  const Plan<T> plan(f);
  Kept<T> memory, *kept = Kept<T>::worth(f) ? &memory : nullptr;
  if (f.loss->f64.margin)
    for (int64_t i = begin; i < end; ++i) forward_group<false, T>(f, plan, i, kept);
  else
    for (int64_t i = begin; i < end; ++i) forward_group<true, T>(f, plan, i, kept);
}

template <class T>
void backward(const Backward& b, int64_t begin, int64_t end) {
  const Plan<T> plan(b);
  for (int64_t i = begin; i < end; ++i) backward_group<T>(b, plan, i);
}

template <class T>
void scale(T* grad, int64_t begin, int64_t end, double by) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const auto factor = static_cast<ScalarOf<T>>(by);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(grad + i, load(grad + i) * factor);
  for (; i < end; ++i) store_one(grad + i, load_one(grad + i) * factor);
}

// calls f with an element of the rows' type
template <class F>
IMAE_INLINE auto by_type(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat64: return f(double{});
    case DType::kFloat16: return f(Half{});
    case DType::kBFloat16: return f(BFloat16{});
    default: return f(float{});
  }
}

constexpr CpuKernels kernels(const char* name) {
  return {name,
          [](const Rows& r) { return by_type(r.dtype, [&](auto t) { return Plan<decltype(t)>(r).in_place; }); },
          [](const Rows& r) { return by_type(r.dtype, [&](auto t) { return Plan<decltype(t)>(r).count(r); }); },
          [](const Forward& f, int64_t begin, int64_t end) {
            by_type(f.dtype, [&](auto t) { forward<decltype(t)>(f, begin, end); });
          },
          [](const Backward& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { backward<decltype(t)>(b, begin, end); });
          },
          [](DType dtype, void* grad, int64_t begin, int64_t end, double by) {
            by_type(dtype, [&](auto t) { scale(static_cast<decltype(t)*>(grad), begin, end, by); });
          }};
}

}  // namespace imae::IMAE_ISA
