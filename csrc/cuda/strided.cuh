// Rows whose classes lie apart, as in (N, C, H, W): a thread has a position to itself and walks along its classes,
// while its neighbours read the neighbouring addresses. The logits are read twice, the second time mostly from a
// cache: a block's positions together take C * kStridedThreads elements. It is right for any strides, if not fast.
#pragma once
#include "jobs.h"

namespace imae {

constexpr int kStridedThreads = 128;  // a guess
constexpr int kBatch = 8;             // loads on their way at once; a guess
constexpr int kSome = 32 * kBatch;    // classes that are added up at once: no sum has many terms

// kBatch classes of one position, from `begin` on; -infinity where there is none.
template <class T>
struct Batch {
  using S = ScalarOf<T>;
  S x[kBatch];
  __device__ __forceinline__ Batch(const T* z, int64_t stride, int begin, int C) {
#pragma unroll
    for (int k = 0; k < kBatch; ++k) x[k] = begin + k < C ? S(widen(z[(begin + k) * stride])) : -Device<S>::infinity();
  }
  template <class P, class Out>
  __device__ __forceinline__ P part(int begin, int C, Out out, bool more) const {
    P s = no_classes<P>();
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (!out(begin + k)) s.max = larger(s.max, x[k]);
    const S m = finite_or_zero(s.max);
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
      if (!out(begin + k) && begin + k < C) s.add(P::of(x[k] - m, more), more);
    return s;
  }
};

// The statistics of C classes, a stride apart, without those that out(j) leaves out.
template <class P, class T, class Out>
__device__ __forceinline__ P part_of(const T* z, int64_t stride, int C, Out out, bool more) {
  P part = no_classes<P>(), before = part;
  for (int begin = 0; begin < C; begin += kBatch) {
    if (begin > 0 && begin % kSome == 0) {
      before = merge(before, part);
      part = no_classes<P>();
    }
    part = merge(part, Batch<T>(z, stride, begin, C).template part<P>(begin, C, out, more));
  }
  return C > kSome ? merge(before, part) : part;
}

template <class Job>
__global__ void __launch_bounds__(kStridedThreads, kResidentThreads<typename Job::S> / kStridedThreads)
    strided_kernel(const __grid_constant__ Job job) {
  using T = typename Job::T;
  using S = typename Job::S;
  const auto& rows = job.rows;
  const int C = static_cast<int>(rows.C);
  const int64_t stride = rows.logits_view.class_stride, grad_stride = rows.grad_view.class_stride;
  const S scale = job.agree_on_scale();
  Totals totals{0, 0, 0};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kStridedThreads + threadIdx.x; i < rows.N;
       i += static_cast<int64_t>(gridDim.x) * kStridedThreads) {
    Label<S> t = label_of<S>(rows, i);
    const T* z = static_cast<const T*>(rows.logits) + rows.logits_view.row(i);
    Coefficients<S> c{0, 0, 0, 0};
    if constexpr (Job::kForward) {
      if (t.ignored) {
        job.ignore(i);
      } else {
        const auto is_label = [&](int j) { return j == t.y; };
        const auto part = part_of<typename Job::Part>(z, stride, C, is_label, job.wants_more());
        c = job.evaluate(i, t, part.statistics(t.y >= 0 ? S(widen(z[t.y * stride])) : S(0)), scale, true, totals);
      }
    } else {
      c = job.saved(i, scale, t);
    }
    if (!Job::kGradient || !rows.grad) continue;
    T* grad = static_cast<T*>(rows.grad) + rows.grad_view.row(i);
    const S after = job.after(i);
    for (int begin = 0; begin < C; begin += kBatch) {
      const Batch<T> z_j(z, stride, begin, t.ignored ? 0 : C);  // an ignored row is not read
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (begin + k >= C) break;
        const S g = begin + k == t.y ? c.g_y : gradient(c, z_j.x[k]);
        narrow(t.ignored ? S(0) : g * after, grad[(begin + k) * grad_stride]);
      }
    }
  }
  job.finish(totals);
}

}  // namespace imae
