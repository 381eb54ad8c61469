// The CPU kernels for one instruction set. Each file that includes this has included std.h, then chosen the target,
// then defined IMAE_ISA and IMAE_VECTOR_BYTES, which isa.h explains.
//
// Rows are taken in groups. A group's softmax sums are gathered into vectors with a lane for each row, the formulas
// are evaluated once for the whole group, and its gradient is written while its exponentials are still in the cache.
#pragma once
#include "../formulas.h"
#include "../kernels.h"
#include "elements.h"
#include "group.h"
#include "isa.h"
#include "lanes.h"
#include "simd.h"
#include "sweeps.h"
#include "targets.h"

namespace imae::IMAE_ISA {

// One row, its maximum found first: for a sum that over- or underflowed without that.
template <bool kSum, class T>
IMAE_INLINE void read_one(const Rows& r, Block<T>& block, int k, int l) {
  using S = ScalarOf<T>;
  LaneSums<S>& sums = block.sums[k];
  const int64_t y = block.labels[k][l];
  const T* z = static_cast<const T*>(r.logits) + r.logits_view.row(block.group[k].first + l);
  const auto one = read_row<kSum>(block.row(r.C, k, l), block.kept, z, r.C, y);
  sums.z_y[l] = load_one(z + y);
  sums.max[l] = one.max;
  sums.sum_exp[l] = one.sums.exp;
  sums.sum[l] = one.sums.plain;
}

// Rows in one sweep: not the maximum is subtracted but the label's logit, which is known. A row whose sum then comes
// near the ends of float's range is read again.
template <bool kSum, class T>
IMAE_INLINE void read_rows(const Rows& r, Block<T>& block, int k, int64_t fetch) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  constexpr int kLanes = V::kLanes;
  const Group g = block.group[k];
  const Labels<S>& labels = block.labels[k];
  LaneSums<S>& sums = block.sums[k];
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
    const auto row = r.C > kPart ? exponentiate_parts<kSum>(keep, kept, z, r.C, labels[l], z_y, next, later)
                                 : exponentiate<kSum>(keep, z, r.C, labels[l], z_y, next, later);
    exp[l] = row.exp;
    plain[l] = row.plain;
  }
  const Real z_y = load(own), sum = reduce_each<kLanes>(exp, Plus{});
  sums = {z_y, sum, Real{}, z_y};
  if constexpr (kSum) sums.sum = reduce_each<kLanes>(plain, Plus{});
  const auto done = ((sum > S(0x1p-100)) & (sum < S(0x1p40))) | (labels.all() < 0);
  for (int l = 0; !all_lanes(done) && l < kLanes; ++l)
    if (!done[l]) read_one<kSum>(r, block, k, l);
}

template <bool kSum, class T>
IMAE_INLINE void read_block(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const View from = r.logits_view, to = r.grad_view;
  const T *logits = static_cast<const T*>(r.logits), *grad = static_cast<const T*>(r.grad);
  if (plan.path == Path::kAlong) {
    const int64_t first = block.group[0].first, later = first + block.count * plan.rows;
    const int64_t fetch = from.row(later < r.N ? later : r.N - 1) - from.row(first);
    for (int k = 0; k < block.count; ++k) read_rows<kSum>(r, block, k, fetch);
  } else if (plan.path == Path::kAcross) {
    for (int k = 0; k < block.count; ++k) {
      const T* z = logits + from.row(block.group[k].first);
      const T* row = grad ? grad + to.row(block.group[k].first) : nullptr;
      block.sums[k] = read_lanes<kSum, S>(
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
      block.sums[k] = read_lanes<kSum, S>(
          r.C, block.labels[k].all(),
          [at = block.tile(k)](int64_t j) __attribute__((always_inline)) { return load(at + j * V::kLanes); },
          [at = block.tile(k)](int64_t j, Real e) __attribute__((always_inline)) { store(at + j * V::kLanes, e); });
  }
}

// kRead: whether the rows have been read, so that the block may hold their exponentials
template <bool kRead, class T>
IMAE_INLINE void write_group(const Rows& r, const Plan<T>& plan, Block<T>& block, int k,
                             const Coefficients<ScalarOf<T>>& c) {
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
      const S max = c.max[l];
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
              return Pair<T>{V::exp_sweep(x.first - max), V::exp_sweep(x.second - max)};
            },
            [=](int64_t, int64_t at) __attribute__((always_inline)) { return V::exp_sweep(load(z + at) - max); });
    }
  } else if (plan.path == Path::kAcross) {
    const T* z = logits + from.row(g.first);
    T* row = grad + to.row(g.first);
    write_lanes<S>(
        C, y.all(), c,
        [=, max = c.max, tile = kRead && C <= kMaxTile ? block.tile(k) : nullptr](int64_t j)
            __attribute__((always_inline)) {
              return tile ? load(tile + j * V::kLanes) : V::exp_sweep(load(z + j * from.class_stride) - max);
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
        [=, max = c.max](int64_t j) __attribute__((always_inline)) {
          const Real x = load(tile + j * V::kLanes);
          return kRead ? x : V::exp_sweep(x - max);
        },
        [=](int64_t j, Real x) __attribute__((always_inline)) { store(tile + j * V::kLanes, x); });
    write_tile(tile, grad, to, r.N, C, g);
  }
}

// One copy for all element types: the formulas are most of the code.
template <bool kGeneral, class S>
__attribute__((noinline)) void evaluate_group(const Forward& f, const LaneSums<S>& sums, Outcome<Vector<S>>& result) {
  result =
      evaluate<Vector<S>, kGeneral>(f.loss->as<S>(), {sums.max, sums.sum_exp, sums.sum}, sums.z_y, static_cast<S>(f.C));
}

template <class T>
IMAE_INLINE void finish_group(const Forward& f, const Plan<T>& plan, int64_t first, Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const Group g = block.group[k];
  const Labels<S>& y = block.labels[k];
  const Outcome<V>& o = block.outcome[k];
  const auto live = y.all() >= 0;
  Real w = V::set(1);
  if (f.class_weight)
    for (int l = g.begin; l < g.end; ++l)
      if (y.live(l)) w[l] = static_cast<const S*>(f.class_weight)[y[l]];
  const Real value = V::select(live, o.value * w, Real{}), weight = V::select(live, o.weight, Real{});
  const Real p = V::select(live, o.p, Real{});
  const Coefficients<S> c{block.sums[k].max, o.a * w, o.b * w, o.g_y * w};
  const auto each = [=](void* to, Real x) __attribute__((always_inline)) {
    for (int l = g.begin; to && l < g.end; ++l) static_cast<S*>(to)[g.first + l] = x[l];
  };
  each(f.value, value);
  each(f.weight, weight);
  each(f.p, p);
  if (f.coefficients)
    for (int l = g.begin; l < g.end; ++l) {
      S* to = static_cast<S*>(f.coefficients) + 4 * (g.first + l);
      to[0] = c.max[l], to[1] = c.a[l], to[2] = c.b[l], to[3] = c.g_y[l];
    }
  if (f.value_sums) {
    using Doubles = typename VectorOf<double, V::kLanes>::type;
    f.value_sums[first + k] = reduce_one<V::kLanes>(__builtin_convertvector(value, Doubles), Plus{});
  }
  if (f.weight_sums) {
    double sum = 0;
    for (int l = g.begin; l < g.end; ++l) sum += double(weight[l]) * w[l];
    f.weight_sums[first + k] = sum;
  }
  const S scale = static_cast<S>(f.scale);
  if (f.grad) write_group<true>(f, plan, block, k, {c.max, c.a * scale, c.b * scale, c.g_y * scale});
}

template <class T>
void forward(const Forward& f, int64_t begin, int64_t end) {
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
    if (f.loss->f64.margin) {
      read_block<false>(f, plan, block);
      for (int k = 0; k < block.count; ++k) evaluate_group<false>(f, block.sums[k], block.outcome[k]);
    } else {
      read_block<true>(f, plan, block);
      for (int k = 0; k < block.count; ++k) evaluate_group<true>(f, block.sums[k], block.outcome[k]);
    }
    for (int k = 0; k < block.count; ++k) finish_group(f, plan, first, block, k);
  }
}

template <class T>
void backward(const Backward& b, int64_t begin, int64_t end) {
  using S = ScalarOf<T>;
  const Plan<T> plan(b);
  Block<T> block;
  block.count = 1;
  const S divisor = *static_cast<const S*>(b.divisor);
  for (int64_t first = begin; first < end; ++first) {
    const Group g = block.group[0] = plan.group(b, first);
    block.labels[0] = Labels<S>(b, g);
    Coefficients<S> c{};
    for (int l = g.begin; l < g.end; ++l) {
      const int64_t i = g.first + l;
      const S* from = static_cast<const S*>(b.coefficients) + 4 * i;
      const S by = static_cast<const S*>(b.grad_output)[b.grad_output_is_scalar ? 0 : i] / divisor;
      c.max[l] = from[0], c.a[l] = from[1] * by, c.b[l] = from[2] * by, c.g_y[l] = from[3] * by;
    }
    if (plan.path == Path::kTile) read_tile(block.tile(0), static_cast<const T*>(b.logits), b.logits_view, b.N, b.C, g);
    write_group<false>(b, plan, block, 0, c);
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
