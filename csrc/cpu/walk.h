// The CPU kernels for one instruction set. Each file that includes this has included std.h, then chosen the target,
// then defined IMAE_ISA and IMAE_VECTOR_BYTES, which isa.h explains.
//
// Rows are taken in groups. A group's softmax sums are gathered into vectors with a lane for each row, the formulas
// are evaluated once for the whole group, and its gradient is written while its exponentials are still in the cache.
#pragma once
#include "../formulas.h"
#include "../rows.h"
#include "binary.h"
#include "dense.h"
#include "elements.h"
#include "evaluate.h"
#include "group.h"
#include "instruction_sets.h"
#include "isa.h"
#include "lanes.h"
#include "mixed.h"
#include "simd.h"
#include "sweeps.h"
#include "targets.h"

namespace imae::IMAE_ISA {

// One row, its maximum found first: for a sum that over- or underflowed without that.
template <bool kAllLogits, class T>
IMAE_INLINE void read_one(const Rows& r, Block<T>& block, int k, int l) {
  using S = ScalarOf<T>;
  Statistics<typename Vector<S>::Real>& found = block.statistics[k];
  const int64_t y = block.labels[k][l];
  const T* z = static_cast<const T*>(r.logits) + r.logits_view.row(block.group[k].first + l);
  const auto one = read_row<kAllLogits>(block.row(r.C, k, l), block.kept, z, r.C, y);
  found.shift[l] = one.shift;
  found.sum_exp[l] = one.sum_exp;
  found.sum[l] = one.sum;
  found.z_y[l] = one.z_y;
}

// Rows in one sweep: not the maximum is subtracted but the label's logit, which is known. A row whose sum then comes
// near the ends of float's range is read again.
template <bool kAllLogits, class T>
IMAE_INLINE void read_rows(const Rows& r, Block<T>& block, int k, int64_t fetch) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int kLanes = V::kLanes;
  const Group g = block.group[k];
  const Labels<S>& labels = block.labels[k];
  Statistics<Real>& found = block.statistics[k];
  const View from = r.logits_view, to = r.grad ? r.grad_view : from;
  const T* logits = static_cast<const T*>(r.logits);
  const T* grad = r.grad ? static_cast<const T*>(r.grad) : logits;
  const bool kept = block.kept;
  S* const to_keep = block.row(r.C, k, 0);
  const int64_t step = kept ? padded<S>(r.C) : 0;
  const int64_t ahead = r.C <= kAhead ? fetch : kAhead;
  Real exp[kLanes], plain[kLanes];
  alignas(64) S own[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    exp[l] = plain[l] = Real{};
    own[l] = 0;
    if (!labels.live(l)) continue;
    const T* z = logits + from.row(g.first + l);
    const S z_y = own[l] = load_one(z + labels[l]);
    S* keep = to_keep + l * step;
    const T *next = z + ahead, *later = kept ? grad + to.row(g.first + l) : reinterpret_cast<const T*>(keep);
    const auto row = r.C > kPart ? exponentiate_parts<kAllLogits>(keep, kept, z, r.C, labels[l], z_y, next, later)
                                 : exponentiate<kAllLogits>(keep, z, r.C, labels[l], z_y, next, later);
    exp[l] = row.exp;
    plain[l] = row.plain;
  }
  const Real z_y = load(own), sum = reduce_each<kLanes>(exp, Plus{});
  found = {z_y, sum, Real{}, z_y};
  if constexpr (kAllLogits) found.sum = reduce_each<kLanes>(plain, Plus{});
  const auto done = ((sum > S(0x1p-100)) & (sum < S(0x1p40))) | (labels.all() < 0);
  for (int l = 0; !all_lanes(done) && l < kLanes; ++l)
    if (!done[l]) read_one<kAllLogits>(r, block, k, l);
}

template <bool kAllLogits, class T>
IMAE_INLINE void read_block(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const View from = r.logits_view, to = r.grad_view;
  const T *logits = static_cast<const T*>(r.logits), *grad = static_cast<const T*>(r.grad);
  if (plan.path == Path::kAlong) {
    const int64_t first = block.group[0].first, later = first + block.count * plan.rows;
    const int64_t fetch = from.row(later < r.N ? later : r.N - 1) - from.row(first);
    for (int k = 0; k < block.count; ++k) read_rows<kAllLogits>(r, block, k, fetch);
  } else if (plan.path == Path::kAcross) {
    for (int k = 0; k < block.count; ++k) {
      const T* z = logits + from.row(block.group[k].first);
      const T* row = grad ? grad + to.row(block.group[k].first) : nullptr;
      block.statistics[k] = read_lanes<kAllLogits, S>(
          r.C, block.labels[k].all(),
          [=](int64_t j) __attribute__((always_inline)) { return load(z + j * from.class_stride); },
          [=, tile = r.C <= kMaxTile ? block.tile(k) : nullptr](int64_t j, Real e) __attribute__((always_inline)) {
            __builtin_prefetch(z + j * from.class_stride + kBlock * V::kLanes);  // the next block's
            if (row) __builtin_prefetch(row + j * to.class_stride, 1);
            if (tile) store(tile + j * V::kLanes, e);
          });
    }
  } else {
    for (int k = 0; k < block.count; ++k) read_tile(block.tile(k), logits, from, r.N, r.C, block.group[k]);
    for (int k = 0; k < block.count; ++k)
      block.statistics[k] = read_lanes<kAllLogits, S>(
          r.C, block.labels[k].all(),
          [at = block.tile(k)](int64_t j) __attribute__((always_inline)) { return load(at + j * V::kLanes); },
          [at = block.tile(k)](int64_t j, Real e) __attribute__((always_inline)) { store(at + j * V::kLanes, e); });
  }
}

// kRead: whether the rows have been read, so that the block may hold their exponentials
template <bool kRead, class T>
IMAE_INLINE void write_group(const Rows& r, const Plan<T>& plan, Block<T>& block, int k,
                             const Coefficients<RealOf<T>>& c) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Group g = block.group[k];
  const Labels<S>& y = block.labels[k];
  const View from = r.logits_view, to = r.grad_view;
  const T* logits = static_cast<const T*>(r.logits);
  T* grad = static_cast<T*>(r.grad);
  const int64_t C = r.C;
  if (plan.path == Path::kAlong) {
    const auto plain = [](Real x) __attribute__((always_inline)) {  // rounding could turn other NaN into numbers
      return V::select(x == x, x, V::set(std::numeric_limits<S>::quiet_NaN()));
    };
    const Real a = plain(c.a), b = plain(c.b);
    const S* const kept = kRead && block.kept ? block.row(C, k, 0) : nullptr;
    for (int l = g.begin; l < g.end; ++l) {
      T* row = grad + to.row(g.first + l);
      const T* z = logits + from.row(g.first + l);
      const S* e = kept ? kept + l * padded<S>(C) : nullptr;
      const S shift = c.shift[l];
      if (!y.live(l))
        __builtin_memset(row, 0, C * sizeof(T));
      else if (kept)
        write_row(
            row, C, y[l], a[l], b[l], c.g_y[l],
            [=](int64_t j) __attribute__((always_inline)) { return Pair<T>{load(e + j), load(e + j + V::kLanes)}; },
            [=](int64_t j, int64_t) __attribute__((always_inline)) { return load(e + j); });
      else
        write_row(
            row, C, y[l], a[l], b[l], c.g_y[l],
            [=](int64_t j) __attribute__((always_inline)) {
              const Pair<T> x = load_pair(z + j);
              return Pair<T>{V::exp_sweep(x.first - shift), V::exp_sweep(x.second - shift)};
            },
            [=](int64_t, int64_t at) __attribute__((always_inline)) { return V::exp_sweep(load(z + at) - shift); });
    }
  } else if (plan.path == Path::kAcross) {
    const T* z = logits + from.row(g.first);
    T* row = grad + to.row(g.first);
    write_lanes<S>(
        C, y.all(), c,
        [=, shift = c.shift, tile = kRead && C <= kMaxTile ? block.tile(k) : nullptr](int64_t j)
            __attribute__((always_inline)) {
              return tile ? load(tile + j * V::kLanes) : V::exp_sweep(load(z + j * from.class_stride) - shift);
            },
        [=](int64_t j, Real x) __attribute__((always_inline)) {
          T* at = row + j * to.class_stride;
          if (g.begin == 0)
            store(at, x);
          else
            for (int l = g.begin; l < g.end; ++l) store_one(at + l, x[l]);
        });
  } else {
    S* tile = block.tile(k);
    write_lanes<S>(
        C, y.all(), c,
        [=, shift = c.shift](int64_t j) __attribute__((always_inline)) {
          const Real x = load(tile + j * V::kLanes);
          return kRead ? x : V::exp_sweep(x - shift);
        },
        [=](int64_t j, Real x) __attribute__((always_inline)) { store(tile + j * V::kLanes, x); });
    write_tile(tile, grad, to, r.N, C, g);
  }
}

// A steep row of which the label's logit was subtracted may have a coefficient that float cannot hold, with a constant
// that is large: it is read again.
template <bool kAllLogits, class T>
IMAE_INLINE void read_steep(const Forward& f, Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  Outcome<V>& o = block.outcome[k];
  const auto done = (V::abs(o.a) < S(0x1p60)) | (block.labels[k].all() < 0);
  if (all_lanes(done)) return;
  for (int l = 0; l < V::kLanes; ++l)
    if (!done[l]) read_one<kAllLogits>(f, block, k, l);
  evaluate_group<kAllLogits, S>(f, block.statistics[k], o);
}

template <class T>
IMAE_INLINE void finish_group(const GroupedForward& f, const Plan<T>& plan, int64_t first, Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Group g = block.group[k];
  const Labels<S>& y = block.labels[k];
  const Outcome<V>& o = block.outcome[k];
  const auto live = y.all() >= 0;
  Real w = V::set(1);
  if (weighed(f))
    for (int l = g.begin; l < g.end; ++l)
      if (y.live(l)) w[l] = weight_of<S>(f, g.first + l, y[l]);
  const Real value = V::select(live, o.value * w, Real{}), p = V::select(live, o.p, Real{});
  const Real example_weight = V::select(live, o.example_weight, Real{});
  const Coefficients<Real> c{block.statistics[k].shift, o.a * w, o.b * w, o.g_y * w};
  const auto each = [=](void* to, Real x) __attribute__((always_inline)) {
    for (int l = g.begin; to && l < g.end; ++l) static_cast<S*>(to)[g.first + l] = x[l];
  };
  each(f.value, value);
  each(f.example_weight, example_weight);
  each(f.p, p);
  if (f.coefficients) {
    // an infinite shift marks a row that does not count; that of a live row comes with NaN
    const Real saved = V::select(live, V::select(V::isinf(c.shift), c.shift - c.shift, c.shift), V::set(V::infinity()));
    for (int l = g.begin; l < g.end; ++l) {
      S* to = static_cast<S*>(f.coefficients) + kCoefficients * (g.first + l);
      to[0] = saved[l], to[1] = c.a[l], to[2] = c.b[l], to[3] = c.g_y[l];
    }
  }
  if (f.value_sums) {
    using Doubles = typename VectorOf<double, V::kLanes>::type;
    f.value_sums[first + k] = reduce_one<V::kLanes>(__builtin_convertvector(value, Doubles), Plus{});
  }
  if (f.example_weight_sums) {
    double sum = 0;
    for (int l = g.begin; l < g.end; ++l) sum += double(example_weight[l]) * w[l];
    f.example_weight_sums[first + k] = sum;
  }
  const S scale = static_cast<S>(f.scale);
  if (f.grad) write_group<true>(f, plan, block, k, {c.shift, c.a * scale, c.b * scale, c.g_y * scale});
}

template <class T>
void forward(const GroupedForward& f, int64_t begin, int64_t end) {
  using S = ScalarOf<T>;
  const Plan<T> plan(f);
  Block<T> block;
  if (f.grad && plan.path == Path::kAlong) block.keep_rows(f.C);
  for (int64_t first = begin; first < end; first += block.count) {
    block.count = static_cast<int>(end - first < plan.block ? end - first : plan.block);
    for (int k = 0; k < block.count; ++k) {
      block.group[k] = plan.group(f, first + k);
      block.labels[k] = Labels<S>(f, block.group[k]);
    }
    const auto read_and_evaluate = [&](auto all_logits) __attribute__((always_inline)) {
      constexpr bool kAllLogits = decltype(all_logits)::value;
      read_block<kAllLogits>(f, plan, block);
      for (int k = 0; k < block.count; ++k) evaluate_group<kAllLogits, S>(f, block.statistics[k], block.outcome[k]);
      for (int k = 0; plan.path == Path::kAlong && k < block.count; ++k) read_steep<kAllLogits>(f, block, k);
    };
    if (f.formula->needs_all_logits()) {
      read_and_evaluate(std::true_type{});
    } else {
      read_and_evaluate(std::false_type{});
    }
    for (int k = 0; k < block.count; ++k) finish_group(f, plan, first, block, k);
  }
}

// Multiplies a row of gradient by a number.
template <class T>
void scale_row(const Rows& r, int64_t i, ScalarOf<T> by) {
  T* row = static_cast<T*>(r.grad) + r.grad_view.row(i);
  for (int64_t j = 0; j < r.C; ++j) {
    T* at = row + j * r.grad_view.class_stride;
    store_one(at, load_one(at) * by);
  }
}

template <class T>
void backward(const Backward& b, int64_t begin, int64_t end) {
  using S = ScalarOf<T>;
  const Plan<T> plan(b);
  Block<T> block;
  block.count = 1;
  const S divisor = *static_cast<const S*>(b.divisor);
  const auto upstream = [&](int64_t i) {
    return static_cast<const S*>(b.grad_output)[b.grad_output_is_scalar ? 0 : i];
  };
  const auto finite = [](S x) { return x - x == 0; };
  for (int64_t first = begin; first < end; ++first) {
    const Group g = block.group[0] = plan.group(b, first);
    block.labels[0] = Labels<S>(b, g);
    Coefficients<RealOf<T>> c{};
    for (int l = g.begin; l < g.end; ++l) {
      const int64_t i = g.first + l;
      const S* from = static_cast<const S*>(b.coefficients) + kCoefficients * i;
      const S by = (finite(upstream(i)) ? upstream(i) : S(1)) / divisor;
      if (from[0] == Vector<S>::infinity()) block.labels[0].at[l] = -1;
      c.shift[l] = from[0], c.a[l] = from[1] * by, c.b[l] = from[2] * by, c.g_y[l] = from[3] * by;
    }
    if (plan.path == Path::kTile) read_tile(block.tile(0), static_cast<const T*>(b.logits), b.logits_view, b.N, b.C, g);
    write_group<false>(b, plan, block, 0, c);
    // A coefficient of 0 times an infinite upstream gradient would be NaN even where the gradient is not 0.
    for (int l = g.begin; l < g.end; ++l)
      if (const int64_t i = g.first + l; !finite(upstream(i)) && block.labels[0].live(l))
        scale_row<T>(b, i, upstream(i));
  }
}

template <class T>
void scale(T* grad, int64_t begin, int64_t end, double by) {
  constexpr int64_t kLanes = Vector<ScalarOf<T>>::kLanes;
  const auto factor = static_cast<ScalarOf<T>>(by);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(grad + i, load(grad + i) * factor);
  for (; i < end; ++i) store_one(grad + i, load_one(grad + i) * factor);
}

// The same row by row, for a factor that would make NaN of the zeros of a row that does not count.
template <class T>
void scale_rows(const Rows& r, int64_t begin, int64_t end, double by) {
  using S = ScalarOf<T>;
  const auto factor = static_cast<S>(by);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t y = r.label(i);
    if (y != r.ignore_index && weight_of<S>(r, i, y) != 0) scale_row<T>(r, i, factor);
  }
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
          [](const Rows& r) {
            const auto count = [&](auto* target) { return count_targets(target, r.N, r.ignore_index, r.C); };
            return r.target_is_int32 ? count(static_cast<const int32_t*>(r.target))
                                     : count(static_cast<const int64_t*>(r.target));
          },
          [](const GroupedForward& f, int64_t begin, int64_t end) {
            by_type(f.dtype, [&](auto t) { forward<decltype(t)>(f, begin, end); });
          },
          [](const Backward& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { backward<decltype(t)>(b, begin, end); });
          },
          [](DType dtype, void* grad, int64_t begin, int64_t end, double by) {
            by_type(dtype, [&](auto t) { scale(static_cast<decltype(t)*>(grad), begin, end, by); });
          },
          [](const Rows& r, int64_t begin, int64_t end, double by) {
            by_type(r.dtype, [&](auto t) { scale_rows<decltype(t)>(r, begin, end, by); });
          },
          [](const GroupedBinary& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { binary<decltype(t)>(b, begin, end); });
          },
          [](const GroupedBinary& b, int64_t begin, int64_t end) {
            by_type(b.dtype, [&](auto t) { count_amounts<ScalarOf<decltype(t)>>(b, begin, end); });
          },
          [](const GroupedDense& d, int64_t begin, int64_t end) {
            return by_type(d.dtype, [&](auto t) { return dense<decltype(t)>(d, begin, end); });
          },
          [](const GroupedMixed& m, int64_t begin, int64_t end) {
            by_type(m.dtype, [&](auto t) { mixed<decltype(t)>(m, begin, end); });
          }};
}

}  // namespace imae::IMAE_ISA
