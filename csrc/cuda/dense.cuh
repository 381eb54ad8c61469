// Targets with an amount of every class on a GPU: the mathematics of dense.h. A warp takes a row of few classes, a
// block a longer one; its lanes take neighbouring classes, so that they read neighbouring addresses. A row is swept for
// its top class, for the sum of the others' exponentials, for the formula at every class that has an amount, and, if a
// gradient is wanted, once more for that: the logits are read three or four times and the amounts once or twice, all
// but the first time from a cache. Not measured: that a row is not held in shared memory, as in row.cuh, is a guess.
#pragma once
#include "../dense.h"
#include "targets.cuh"

namespace imae {

constexpr int kDenseSome = 32;  // of a lane's classes, that are added up at once: no sum has many terms

template <class T>
struct DenseJob {
  using S = ScalarOf<T>;
  Dense of;
  Reduction reduction;
  Workspace* workspace;
  Combination<S> combination;

  template <int kLanes>
  __device__ __forceinline__ Totals row(int64_t i) const;
};

// The row's top class, the first of the largest logits, and the largest of the others.
template <class S>
struct Top {
  S z;
  int k;
  S next;
};
template <class S>
__device__ __forceinline__ Top<S> merge(const Top<S>& x, const Top<S>& y) {
  const bool second = y.z > x.z || (y.z == x.z && y.k < x.k);  // a NaN is neither
  return !second ? Top<S>{x.z, x.k, larger(x.next, y.z)} : Top<S>{y.z, y.k, larger(y.next, x.z)};
}

// Sums over the others of the top class, of exp(x), of x that is not -infinity, and how many are. x: less the shift.
template <class S>
struct Masses {
  S exp, x, masked;
};
template <class S>
__device__ __forceinline__ Masses<S> merge(const Masses<S>& a, const Masses<S>& b) {
  return {a.exp + b.exp, a.x + b.x, a.masked + b.masked};
}

// Sums over the classes that have an amount; a_top, b_top and g_top are those of the top class, A and B the others'.
template <class S>
struct Amounts {
  S value, example_weight, A, B, a_top, b_top, g_top, live;
};
template <class S>
__device__ __forceinline__ Amounts<S> merge(const Amounts<S>& x, const Amounts<S>& y) {
  return {x.value + y.value, x.example_weight + y.example_weight,
          x.A + y.A,         x.B + y.B,
          x.a_top + y.a_top, x.b_top + y.b_top,
          x.g_top + y.g_top, x.live + y.live};
}

template <class T, int kLanes>
struct DenseRow {
  using S = ScalarOf<T>;
  using D = Device<S>;
  const DenseJob<T>& job;
  const T* z;
  const S* t;
  int C, lane;
  // what the sweeps have found
  Top<S> top{-D::infinity(), 0x7fffffff, -D::infinity()};
  S shift = 0, log_sum = 0, inverse = 0;  // of the others' exponentials, and what makes q_k of one
  S u = 0, p = 0, r = 0, nlr = 0;         // of the top class
  S sum_nlp = 0, sum_x = 0, masked = 0;   // over all classes of -log p_k, but for those without any probability

  __device__ __forceinline__ DenseRow(const DenseJob<T>& job, int64_t i)
      : job(job),
        z(static_cast<const T*>(job.of.logits) + i * job.of.C),
        t(static_cast<const S*>(job.of.target) + i * job.of.C),
        C(static_cast<int>(job.of.C)),
        lane(threadIdx.x % kLanes) {}

  __device__ __forceinline__ S amount(int k) const {
    const S e = static_cast<S>(job.of.smoothing);
    S x = t[k];
    if (e != 0) x = (1 - e) * x + e / static_cast<S>(C);
    if (job.of.class_weight) x *= static_cast<const S*>(job.of.class_weight)[k];
    return x;
  }

  __device__ __forceinline__ void find_top() {
#pragma unroll 4
    for (int k = lane; k < C; k += kLanes) top = merge(top, {S(widen(z[k])), k, -D::infinity()});
    top = merge_lanes<kLanes>(top);
    shift = finite_or_zero(top.next);
  }

  __device__ __forceinline__ void add_masses() {
    Masses<S> all{0, 0, 0};
    for (int begin = lane; begin < C; begin += kDenseSome * kLanes) {
      Masses<S> some{0, 0, 0};
      const int end = begin + kDenseSome * kLanes < C ? begin + kDenseSome * kLanes : C;
#pragma unroll 4
      for (int k = begin; k < end; k += kLanes) {
        const S x = widen(z[k]) - shift;
        const bool none = x == -D::infinity();
        if (k != top.k) some = merge(some, {fast_exp(x), none ? S(0) : x, none ? S(1) : S(0)});
      }
      all = merge(all, some);
    }
    all = merge_lanes<kLanes>(all);
    const bool alone = all.exp == 0;
    log_sum = D::log(all.exp);
    u = top.z == D::infinity() ? static_cast<S>(NAN) : (top.z - shift) - log_sum;
    const Row<D> row = row_of_margin<D>(u);
    const bool known = u == u;
    p = known ? row.p : u;
    r = known ? row.r : u;
    nlr = known ? row.nlr : u;
    inverse = alone ? S(0) : 1 / all.exp;
    sum_x = all.x;
    masked = all.masked;
    sum_nlp = row.nlp + (alone ? S(0) : (static_cast<S>(C - 1) - masked) * (log_sum + nlr) - sum_x);
  }

  // What class k of amount t_k adds to the sums, and what of its gradient is its own.
  struct Share {
    Amounts<S> sums;
    S own;
  };
  __device__ __forceinline__ Share share(int k, S z_k, S t_k) const {
    const bool is_top = k == top.k;
    const S infinity = D::infinity(), others = static_cast<S>(C - 1), x = z_k - shift;
    const bool none = x == -infinity, fit = is_top && u == infinity;
    const S log_p = none ? (nlr == nlr ? x : nlr) : (x - log_sum) - nlr;
    const S p_k = fast_exp(x) * (r * inverse), r_k = 1 - p_k, log_r = D::log1p(-p_k);
    // As if the others' exponentials added up to 1: the margin is then the label's logit, and a is that of q_j.
    Statistics<S> found{0, fit ? S(0) : S(1), 0, is_top ? u : none ? log_p : log_p - log_r};
    if (fit) found.z_y = 0;
    if (is_top) {
      found.sum = masked > 0 ? -infinity : sum_x - others * log_sum;
    } else if (C > 2) {  // so that evaluate() finds the others' sum of -log p_j
      const S all = masked > (none ? 1 : 0) ? infinity : sum_nlp;
      found.sum = -others * log_r - (none ? all : all + log_p);
    }
    const Outcome<D> o = evaluate<D>(job.combination, found, static_cast<S>(C));
    const S a = t_k * o.a, b = t_k * o.b, g = t_k * o.g_y, ratio = t_k * (o.a / r_k);
    Share found_here{{t_k * o.value, t_k * o.example_weight, 0, 0, 0, 0, 0, 1}, 0};
    if (is_top) {
      found_here.sums.a_top = a;
      found_here.sums.b_top = b;
      found_here.sums.g_top = g;
    } else {
      found_here.sums.A = ratio;
      found_here.sums.B = b;
      found_here.own = (g - b) - p_k * ratio;
    }
    return found_here;
  }

  // Value and gradient; grad and factor are looked at in the second of two passes.
  __device__ __forceinline__ Amounts<S> evaluate_all(T* grad, S factor) const {
    Amounts<S> all{0, 0, 0, 0, 0, 0, 0, 0};
    S along_e = 0, of_each = 0;
#pragma unroll 1
    for (int pass = 0; pass < (grad ? 2 : 1); ++pass) {  // so that the formulas are compiled once
      for (int begin = lane; begin < C; begin += kDenseSome * kLanes) {
        Amounts<S> some{0, 0, 0, 0, 0, 0, 0, 0};
        const int end = begin + kDenseSome * kLanes < C ? begin + kDenseSome * kLanes : C;
#pragma unroll 1
        for (int k = begin; k < end; k += kLanes) {
          const S t_k = amount(k);
          Share of{{0, 0, 0, 0, 0, 0, 0, 0}, 0};
          if (t_k != 0) of = share(k, widen(z[k]), t_k);
          if (pass == 0) {
            some = merge(some, of.sums);
            continue;
          }
          S g = along_e * fast_exp(widen(z[k]) - shift) + (of.own + of_each);
          if (k == top.k) g = p * all.A + all.B + all.g_top;
          narrow(all.live > 0 ? g * factor : S(0), grad[k]);
        }
        if (pass == 0) all = merge(all, some);
      }
      if (pass > 0) break;
      all = merge_lanes<kLanes>(all);
      along_e = inverse * (r * all.A + all.a_top);
      of_each = all.B + all.b_top;
    }
    return all;
  }
};

template <class T>
template <int kLanes>
__device__ __forceinline__ Totals DenseJob<T>::row(int64_t i) const {
  const S w = of.sample_weight ? static_cast<const S*>(of.sample_weight)[i] : S(1);
  T* grad = of.grad ? static_cast<T*>(of.grad) + i * of.C : nullptr;
  Amounts<S> found{0, 0, 0, 0, 0, 0, 0, 0};
  if (w != 0) {
    DenseRow<T, kLanes> row(*this, i);
    row.find_top();
    row.add_masses();
    found = row.evaluate_all(grad, grad ? w * upstream<S>(of, i) : S(0));
  } else if (grad) {
    for (int64_t k = threadIdx.x % kLanes; k < of.C; k += kLanes) narrow(S(0), grad[k]);
  }
  const bool live = found.live > 0;
  const S value = live ? found.value * w : S(0);
  if (of.value && threadIdx.x % kLanes == 0) static_cast<S*>(of.value)[i] = value;
  return {double(value), live ? double(found.example_weight) * w : 0, double(w)};
}

}  // namespace imae
