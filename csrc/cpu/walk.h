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
#include "reading.h"
#include "simd.h"
#include "sweeps.h"

namespace imae::IMAE_ISA {

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
      if (!y.live(l)) {
        __builtin_memset(row, 0, C * sizeof(T));
        continue;
      }
      with_exponentials<T>(kept ? kept + l * padded<S>(C) : nullptr, logits + from.row(g.first + l), c.shift[l],
                           [&](auto two, auto one) __attribute__((always_inline)) {
                             write_row(block.outlet.place(k * V::kLanes + l, row), C, y[l], a[l], b[l], c.g_y[l], two,
                                       one);
                           });
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

// Whole vectors of a block's groups from its tiles, class by class as in read_planes.
template <class T>
IMAE_INLINE void write_planes(const Rows& r, Block<T>& block) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  using Real = typename V::Real;
  T* grad[kBlock];
  S* tile[kBlock];
  for (int k = 0; k < kBlock; ++k) {
    grad[k] = static_cast<T*>(r.grad) + r.grad_view.row(block.group[k].first);
    tile[k] = block.tile(k);
  }
  const int64_t C = r.C, step = r.grad_view.class_stride;
  for (int64_t j = 0; j < C; ++j) {
    const auto class_j = V::set_int(static_cast<typename V::Int>(j));
#pragma GCC unroll 8
    for (int k = 0; k < kBlock; ++k) {
      const Coefficients<Real>& c = block.coefficients[k];
      const auto y = block.labels[k].all();
      const Real other = load(tile[k] + j * V::kLanes) * c.a + c.b;
      store(grad[k] + j * step, V::select(y < 0, Real{}, V::select(y == class_j, c.g_y, other)));
    }
  }
}

// The gradient of rows that have been read.
template <class T>
IMAE_INLINE void write_block(const Rows& r, const Plan<T>& plan, Block<T>& block) {
  bool whole = kByClass && plan.path == Path::kAcross && r.C <= kMaxTile && block.count == kBlock;
  for (int k = 0; k < block.count; ++k) whole &= block.group[k].begin == 0;
  if (whole) return write_planes(r, block);
  for (int k = 0; k < block.count; ++k) write_group<true>(r, plan, block, k, block.coefficients[k]);
}

// A steep row of which the label's logit was subtracted may have a coefficient that float cannot hold, with a constant
// that is large: it is read again.
template <bool kAllLogits, class T>
IMAE_INLINE void read_steep(const Forward& f, const Plan<T>& plan, Block<T>& block, int k) {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  Outcome<V>& o = block.outcome[k];
  if (read_again<kAllLogits ? kPlain : 0>(f, plan, block, k, V::abs(o.a) < S(0x1p60)))
    evaluate_groups<kAllLogits, S>(f, &block.statistics[k], &o, 1);
}

}  // namespace imae::IMAE_ISA
