// A block of rows of class labels on its way through the steps: read, and written.
//
// Rows are taken in groups. A group's softmax sums are gathered into vectors with a lane for each row, the formulas
// are evaluated once for the whole group, and its gradient is written while its exponentials are still in the cache.
#pragma once
#include "../rows.h"
#include "../steps.h"
#include "elements.h"
#include "evaluate.h"
#include "group.h"
#include "isa.h"
#include "lanes.h"
#include "simd.h"
#include "sweeps.h"

namespace imae::IMAE_ISA {

// One row, its maximum found first: for a sum that over- or underflowed without that.
template <int kSums, class T>
IMAE_INLINE void read_one(const Rows& r, Block<T>& block, int k, int l) {
  using S = ScalarOf<T>;
  Statistics<typename Vector<S>::Real>& found = block.statistics[k];
  const int64_t y = block.labels[k][l];
  const T* z = static_cast<const T*>(r.logits) + r.logits_view.row(block.group[k].first + l);
  const auto one = read_row<kSums>(block.row(r.C, k, l), block.kept, z, r.C, y);
  found.shift[l] = one.shift;
  found.sum_exp[l] = one.sum_exp;
  found.sum[l] = one.sum;
  found.z_y[l] = one.z_y;
}

// Rows in one sweep: not the maximum is subtracted but the label's logit, which is known. A row whose sum then comes
// near the ends of float's range is read again. In two sweeps where the maximum is wanted.
template <int kSums, class T>
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
  constexpr bool kMax = kSums & kFromMax;
  Real exp[kLanes], plain[kLanes], weighted[kLanes], squares[kLanes];
  alignas(64) S own[kLanes], shift[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    exp[l] = plain[l] = weighted[l] = squares[l] = Real{};
    own[l] = shift[l] = 0;
    if (!labels.live(l)) continue;
    const T* z = logits + from.row(g.first + l);
    own[l] = load_one(z + labels[l]);
    const S m = shift[l] = kMax ? finite_or_zero(maximum(z, r.C, labels[l])) : own[l];
    S* keep = to_keep + l * step;
    const T *next = z + ahead, *later = kept ? grad + to.row(g.first + l) : reinterpret_cast<const T*>(keep);
    const auto row = r.C > kPart ? exponentiate_parts<kSums>(keep, kept, z, r.C, labels[l], m, next, later)
                                 : exponentiate<kSums>(keep, z, r.C, labels[l], m, next, later);
    exp[l] = row.exp;
    plain[l] = row.plain;
    weighted[l] = row.weighted;
    squares[l] = row.squares;
  }
  const Real sum = reduce_each<kLanes>(exp, Plus{});
  found = {load(shift), sum, Real{}, load(own)};
  if constexpr (kSums & kPlain) found.sum = reduce_each<kLanes>(plain, Plus{});
  if constexpr (kSums & kWeighted) found.weighted = reduce_each<kLanes>(weighted, Plus{});
  if constexpr (kSums & kSquares) found.squares = reduce_each<kLanes>(squares, Plus{});
  if constexpr (kMax) return;
  const auto done = ((sum > S(0x1p-100)) & (sum < S(0x1p40))) | (labels.all() < 0);
  for (int l = 0; !all_lanes(done) && l < kLanes; ++l)
    if (!done[l]) read_one<kSums>(r, block, k, l);
}

// A block whose vectors run along the classes.
template <int kSums, class T>
IMAE_INLINE void read_along(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  const int64_t first = block.group[0].first, later = first + block.count * plan.rows;
  const int64_t fetch = r.logits_view.row(later < r.N ? later : r.N - 1) - r.logits_view.row(first);
  for (int k = 0; k < block.count; ++k) read_rows<kSums>(r, block, k, fetch);
}

// A block with a lane for each row.
template <int kSums, class T>
IMAE_INLINE void read_in_lanes(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  const View from = r.logits_view, to = r.grad_view;
  const T *logits = static_cast<const T*>(r.logits), *grad = static_cast<const T*>(r.grad);
  if (plan.path == Path::kAcross) {
    for (int k = 0; k < block.count; ++k) {
      const T* z = logits + from.row(block.group[k].first);
      const T* row = grad ? grad + to.row(block.group[k].first) : nullptr;
      block.statistics[k] = read_lanes<kSums, S>(
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
      block.statistics[k] = read_lanes<kSums, S>(
          r.C, block.labels[k].all(),
          [at = block.tile(k)](int64_t j) __attribute__((always_inline)) { return load(at + j * V::kLanes); },
          [at = block.tile(k)](int64_t j, Real e) __attribute__((always_inline)) { store(at + j * V::kLanes, e); });
  }
}

template <int kSums, class T>
IMAE_INLINE void read_block(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  if (plan.path == Path::kAlong)
    read_along<kSums>(r, plan, block);
  else
    read_in_lanes<kSums>(r, plan, block);
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
    if (!done[l]) read_one<kAllLogits ? kPlain : 0>(f, block, k, l);
  evaluate_group<kAllLogits, S>(f, block.statistics[k], o);
}

}  // namespace imae::IMAE_ISA
