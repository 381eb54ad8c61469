// Rows whose classes lie next to one another. kLanes threads share a row: each copies its packs of 16 bytes into slots
// of shared memory that no other thread touches (so no barrier guards them), sweeps over them for the maximum, for the
// sums and for the gradient, and stores that 16 bytes at a time. The elements at the unaligned ends of a row, fewer
// than a pack at either, are held in registers. So a row that the slots hold is read once and its gradient written
// once. A longer row is taken in chunks: the last one is still held when the sums are known, the others are read again
// in reverse order, the latest of them from the L2 cache.
#pragma once
#include "jobs.h"

namespace imae {

// Threads of a block: a guess.
template <int kLanes>
constexpr int kRowThreads = kLanes <= 32 ? 256 : kLanes;
template <class S, int kLanes>
constexpr int kRowBlocks = kResidentThreads<S> / kRowThreads<kLanes>;

// The blocks that share a row: here, each has its rows to itself. cluster.cuh has several.
struct OneBlock {
  __device__ __forceinline__ int rank() const { return 0; }
  __device__ __forceinline__ int count() const { return 1; }
  template <class P>
  __device__ __forceinline__ P across(const P& of_block, int) const {
    return of_block;
  }
};

// What one thread holds of a row: its packs of a chunk, and in chunk 0 of the edges. Of each block, kLanes share it.
template <class T, int kLanes, class Blocks>
struct Held {
  using S = ScalarOf<T>;
  static constexpr int kSize = Pack<T>::kSize;
  static constexpr int kSlotStep = kRowThreads<kLanes> * kSize;
  static constexpr int kEdges = (Span<T>::kMostEdges + kLanes - 1) / kLanes;
  static constexpr int kGroup = kLanes < 32 ? kLanes : 32;
  const Span<T>& z;
  int lane, lanes;  // of the row
  int step;         // elements of the row from one slot to the next
  T* slot;          // the first; the others follow at kSlotStep
  int first;        // element of the row in the first slot
  int slots;        // how many of them the chunk fills
  bool has_edges;   // chunk 0
  S edge[kEdges];   // -infinity where there is none

  __device__ __forceinline__ Held(const Span<T>& z, void* shared, const Blocks& blocks)
      : z(z),
        lane(blocks.rank() * kLanes + static_cast<int>(threadIdx.x % kLanes)),
        lanes(blocks.count() * kLanes),
        step(lanes * kSize),
        slot(static_cast<T*>(shared) + threadIdx.x * kSize) {}

  // body(k, j) for the edges: edge[k] is element j of the row, or there is none and j < 0
  template <class Body>
  __device__ __forceinline__ void for_edges(Body body) {
#pragma unroll
    for (int k = 0; k < kEdges; ++k) body(k, has_edges ? z.edge(k * lanes + lane) : -1);
  }

  __device__ __forceinline__ void place(int chunk, int most) {
    const int before = chunk * most * lanes + lane;  // packs
    first = z.first(before);
    slots = (z.packs - before + lanes - 1) / lanes;
    slots = slots < 0 ? 0 : slots < most ? slots : most;
    has_edges = chunk == 0;
  }

  __device__ __forceinline__ void start_copies() {
    const T* from = z.begin + first;
#pragma unroll 4
    for (int k = 0; k < slots; ++k) copy_pack_async(slot + k * kSlotStep, from + k * step);
  }
  __device__ __forceinline__ void finish_copies() {
    for_edges([&](int k, int j) { edge[k] = j < 0 ? -Device<S>::infinity() : S(widen(z.begin[j])); });
    wait_for_copies();
  }
  __device__ __forceinline__ void read() {
    start_copies();
    finish_copies();
  }

  // body(x, j) for every pack that is held: its first element is element j of the row
  template <class Body>
  __device__ __forceinline__ void for_packs(Body body) {
#pragma unroll 2
    for (int k = 0; k < slots; ++k) body(load_pack(slot + k * kSlotStep), first + k * step);
  }

  // body(j, z_j) for every element that is held
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) {
    for_packs([&](const Pack<T>& x, int j) {
#pragma unroll
      for (int e = 0; e < kSize; ++e) body(j + e, x.at(e));
    });
    for_edges([&](int k, int j) { body(j, edge[k]); });
  }

  __device__ __forceinline__ bool owns_pack_of(int j) const {
    const int past = j - first;
    return past >= 0 && past % step < kSize && past / step < slots;
  }

  // The label is none of the other classes: neither maximum nor sum_exp sees -infinity.
  __device__ __forceinline__ void mask(int y) {
    if (owns_pack_of(y)) {
      const int past = y - first;
      narrow(-Device<S>::infinity(), slot[past / step * kSlotStep + past % step]);
    }
    for_edges([&](int k, int j) { edge[k] = j == y ? -Device<S>::infinity() : edge[k]; });
  }

  // A pack first, so that no sum has many terms.
  template <class P>
  __device__ __forceinline__ void add_up(P& s, S m, bool more) {
    for_packs([&](const Pack<T>& x, int) {
      P few = P::of(x.at(0) - m, more);
#pragma unroll
      for (int e = 1; e < kSize; ++e) few.add(P::of(x.at(e) - m, more), more);
      s.add(few, more);
    });
    for_edges([&](int k, int) { s.add(P::of(edge[k] - m, more), more); });
  }

  // This thread's part of the statistics, relative to the maximum over its warp's part of the row.
  template <class P>
  __device__ __forceinline__ P part(int y, bool more) {
    P s = no_classes<P>();
    if (y >= 0) mask(y);
    Pack<T> max = filled<T>(s.max);
    for_packs([&](const Pack<T>& x, int) { max.raise_to(x); });
    s.max = max.largest();
    for_edges([&](int k, int) { s.max = larger(s.max, edge[k]); });
    s.max = group_max<kGroup>(s.max);
    const S m = finite_or_zero(s.max);
    if constexpr (P::kMasks) {
      more ? add_up(s, m, true) : add_up(s, m, false);  // two loops, that none asks in between
      return s;
    } else {
      add_up(s, m, false);
      if (!more) return s;
      for_each([&](int j, S v) {
        if (j < 0 || j == y) return;
        s.sum += v - m;
        s.count += 1;
      });
      return s;
    }
  }

  // Writes f(z_j) for what is held; to: the gradient's row.
  template <class F>
  __device__ __forceinline__ void write(T* to, F f) {
    T* at = to + first;
    if (is_aligned(at)) {
#pragma unroll 1
      for (int k = 0; k < slots; ++k) {
        const Pack<T> x = load_pack(slot + k * kSlotStep);
        Pack<T> g;
        g.set([&](int e) { return f(x.at(e)); });
        store_pack(at + k * step, g);
      }
    } else {  // a gradient that lies otherwise than the logits
      for (int k = 0; k < slots; ++k)
        for (int e = 0; e < kSize; ++e) narrow(f(widen(slot[k * kSlotStep + e])), at[k * step + e]);
    }
    for_edges([&](int k, int j) {
      if (j >= 0) narrow(f(edge[k]), to[j]);
    });
  }

  __device__ __forceinline__ void write_label(T* to, int y, S g_y) {
    bool mine = owns_pack_of(y);
    for_edges([&](int, int j) { mine |= j == y; });
    if (mine) narrow(g_y, to[y]);  // after this thread's own store of that pack
  }
};

// shared: 16 * most bytes for each thread of the block, its slots
template <int kLanes, class Job, class Blocks>
__device__ __forceinline__ void walk_rows(const Job& job, void* shared, int most, const Blocks& blocks) {
  using T = typename Job::T;
  using S = typename Job::S;
  constexpr int kRows = kRowThreads<kLanes> / kLanes;  // of a block, at a time
  constexpr int kGroup = Held<T, kLanes, Blocks>::kGroup;
  const auto& rows = job.rows;
  const int64_t step = static_cast<int64_t>(gridDim.x / blocks.count()) * kRows;
  int64_t i = static_cast<int64_t>(blockIdx.x / blocks.count()) * kRows + threadIdx.x / kLanes;
  int64_t label = i < rows.N ? rows.label(i) : 0;  // always a row ahead, so that no copy waits for it
  const S scale = job.agree_on_scale();
  Totals totals{0, 0, 0};
  int turn = 0;
  for (; i < rows.N; i += step) {
    Label<S> t = as_label<S>(rows, i, label);
    const Span<T> z(static_cast<const T*>(rows.logits) + rows.logits_view.row(i), static_cast<int>(rows.C));
    Held<T, kLanes, Blocks> held(z, shared, blocks);
    const int chunks = z.packs <= most * held.lanes ? 1 : (z.packs + most * held.lanes - 1) / (most * held.lanes);
    held.place(Job::kForward ? 0 : chunks - 1, most);
    // the first of the short rows are not worth waiting for their labels; a long one is not worth reading if ignored
    const bool wanted = kLanes <= 32 || !t.ignored;
    if (wanted) held.start_copies();
    if (i + step < rows.N) label = rows.label(i + step);
    S z_y = 0;
    Coefficients<S> c{0, 0, 0, 0};
    if constexpr (Job::kForward)
      z_y = t.y >= 0 ? S(widen(z.begin[t.y])) : S(0);
    else
      c = job.saved(i, scale, t);
    if (wanted) held.finish_copies();
    if constexpr (Job::kForward) {
      using Part = typename Job::Part;
      if (t.ignored) {
        if (held.lane == 0) job.ignore(i);
        held.place(chunks - 1, most);
      } else {
        const bool more = job.wants_more();
        Part part = held.template part<Part>(t.y, more);
        for (int k = 1; k < chunks; ++k) {
          held.place(k, most);
          held.read();
          part = merge(part, held.template part<Part>(t.y, more));
        }
        part.template add_lanes<kGroup>(more);
        if constexpr (kLanes > 32) {
          part = across_warps<kLanes / 32>(part, turn ^= 1);
          part = blocks.across(part, turn);
        }
        c = job.evaluate(i, t, part.statistics(z_y), scale, held.lane == 0, totals);
      }
    }
    if (Job::kGradient && rows.grad) {
      T* grad = static_cast<T*>(rows.grad) + rows.grad_view.row(i);
      const S after = job.after(i);
      for (int k = chunks - 1;;) {
        if (t.ignored)
          held.write(grad, [](S) { return S(0); });
        else
          held.write(grad, [&](S v) { return gradient(c, v) * after; });
        if (!t.ignored && t.y >= 0) held.write_label(grad, t.y, c.g_y * after);
        if (--k < 0) break;
        held.place(k, most);
        if (!t.ignored) held.read();
      }
    }
  }
  job.finish(totals);
}

template <class Job, int kLanes>
__global__ void __launch_bounds__(kRowThreads<kLanes>, kRowBlocks<typename Job::S, kLanes>)
    row_kernel(const __grid_constant__ Job job, int most) {
  IMAE_DYNAMIC_SHARED(bytes);
  walk_rows<kLanes>(job, bytes, most, OneBlock());
}

}  // namespace imae
