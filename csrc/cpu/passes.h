// The passes over rows of class labels that operators ask for: forward, with a gradient or without; backward, from
// saved coefficients; and a finished gradient that is multiplied.
#pragma once
#include "../rows.h"
#include "../steps.h"
#include "elements.h"
#include "evaluate.h"
#include "group.h"
#include "instruction_sets.h"
#include "isa.h"
#include "simd.h"
#include "walk.h"

namespace imae::IMAE_ISA {

template <class S>
IMAE_INLINE void put_rows(void* to, Group g, typename Vector<S>::Real x) {
  for (int l = g.begin; to && l < g.end; ++l) static_cast<S*>(to)[g.first + l] = x[l];
}

template <class T>
IMAE_INLINE void finish_group(const GroupedForward& f, int64_t first, Block<T>& block, int k) {
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
  put_rows<S>(f.value, g, value);
  put_rows<S>(f.example_weight, g, example_weight);
  put_rows<S>(f.p, g, p);
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
  block.coefficients[k] = {c.shift, c.a * scale, c.b * scale, c.g_y * scale};
}

// Chooses the block's groups, of those up to `end`.
template <class T>
IMAE_INLINE void start_block(const Rows& r, const Plan<T>& plan, int64_t first, int64_t end, Block<T>& block) {
  block.count = static_cast<int>(end - first < plan.block ? end - first : plan.block);
  for (int k = 0; k < block.count; ++k) {
    block.group[k] = plan.group(r, first + k);
    block.labels[k] = Labels<ScalarOf<T>>(r, block.group[k]);
  }
}

template <class T>
void forward(const GroupedForward& f, int64_t begin, int64_t end) {
  using S = ScalarOf<T>;
  const Plan<T> plan(f);
  Block<T> block;
  if (f.grad && plan.path == Path::kAlong) block.open(f.grad, f.N, f.C);
  for (int64_t first = begin; first < end; first += block.count) {
    start_block(f, plan, first, end, block);
    const auto read_and_evaluate = [&](auto all_logits) __attribute__((always_inline)) {
      constexpr bool kAllLogits = decltype(all_logits)::value;
      read_block<kAllLogits ? kPlain : 0>(f, plan, block);
      evaluate_groups<kAllLogits, S>(f, block.statistics, block.outcome, block.count);
      for (int k = 0; k < block.count; ++k) read_steep<kAllLogits>(f, plan, block, k);
    };
    if (f.formula->needs_all_logits()) {
      read_and_evaluate(std::true_type{});
    } else {
      read_and_evaluate(std::false_type{});
    }
    for (int k = 0; k < block.count; ++k) finish_group<T>(f, first, block, k);
    if (f.grad) write_block(f, plan, block);
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

}  // namespace imae::IMAE_ISA
