// How the rows are divided: a group fills the lanes of a vector, a block takes some groups through every step together.
#pragma once
#include "../rows.h"
#include "../steps.h"
#include "elements.h"
#include "isa.h"
#include "outlet.h"
#include "simd.h"

namespace imae::IMAE_ISA {

constexpr int kSome = 8;                         // pairs of vectors that are added up at once: no sum has many terms
constexpr int64_t kSomeClasses = 16;             // the same across rows
constexpr int64_t kPart = 1024;                  // classes that are read at once; whole pairs of vectors
constexpr int64_t kSoon = 2048;                  // classes to fetch ahead into the nearest cache, in whole rows
constexpr int64_t kLater = 4096;                 // into the next one within a row; shorter rows: the next block's
constexpr int64_t kLaneClasses = 16;             // up to this many classes a lane for each row is faster
constexpr int64_t kBlockBytes = 64 * 1024;       // of a block's exponentials: they stay in a near cache
constexpr int64_t kRowBytes = 1024 * 1024;       // of a longer row's, if they are kept
constexpr int64_t kMaxTile = 64;                 // classes of a transposed tile
constexpr int kBlock = 128 / IMAE_VECTOR_BYTES;  // groups: while one waits for a division, another computes

// Rounded up to whole vectors.
template <class S>
IMAE_INLINE constexpr int64_t padded(int64_t classes) {
  constexpr int64_t kLanes = Vector<S>::kLanes;
  return (classes + kLanes - 1) / kLanes * kLanes;
}

// kLanes rows. In a group that overlaps the one before, the first lanes are done already.
struct Group {
  int64_t first = 0;
  int begin = 0, end = 0;  // the lanes to do; lane l is row first + l
};

enum class Path { kAlong, kAcross, kTile };  // vectors along the classes; across adjacent rows; through a tile

template <class T>
struct Plan {
  static constexpr int kLanes = Vector<ScalarOf<T>>::kLanes;
  Path path;
  bool in_place = true;
  int64_t rows = kLanes, groups_per_outer = 0;  // rows in a group
  int block = kBlock;                           // groups in a block

  explicit IMAE_INLINE Plan(const Rows& r) {
    const View &z = r.logits_view, &g = r.grad_view;
    const bool both = r.grad != nullptr;
    const bool along = z.class_stride == 1 && (!both || g.class_stride == 1) && r.C >= kLanes;
    if (along && r.C > kLaneClasses) {
      path = Path::kAlong;
      const int64_t fit = kBlockBytes / (padded<ScalarOf<T>>(r.C) * int64_t(sizeof(ScalarOf<T>)));
      rows = fit < 1 ? 1 : fit < kLanes ? fit : kLanes;
      block = fit < 2 * kLanes ? 1 : fit < kBlock * kLanes ? static_cast<int>(fit / kLanes) : kBlock;
    } else if (z.inner_stride == 1 && (!both || g.inner_stride == 1) && z.inner >= kLanes) {
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

IMAE_INLINE bool weighed(const Rows& r) { return r.class_weight || r.sample_weight; }
// What row i with label y is multiplied by. A label that is no class has no weight of its class.
template <class S>
IMAE_INLINE S weight_of(const Rows& r, int64_t i, int64_t y) {
  const S *of_class = static_cast<const S*>(r.class_weight), *of_row = static_cast<const S*>(r.sample_weight);
  return (of_class && y >= 0 && y < r.C ? of_class[y] : S(1)) * (of_row ? of_row[i] : S(1));
}

// Labels, a lane for each row; -1 where the row does not count: it is ignored, weighs nothing, or is not there.
template <class S>
struct Labels {
  using V = Vector<S>;
  alignas(64) typename V::Int at[V::kLanes];

  IMAE_INLINE Labels() = default;
  IMAE_INLINE Labels(const Rows& r, Group g) {
    if (g.begin == 0 && g.end == V::kLanes && !r.target_is_int32 && !weighed(r)) {  // most groups: all at once
      typename VectorOf<int64_t, V::kLanes>::type y;
      __builtin_memcpy(&y, static_cast<const int64_t*>(r.target) + g.first, sizeof y);
      const auto live = __builtin_convertvector(y != r.ignore_index ? y : -1, typename V::Ints);
      __builtin_memcpy(at, &live, sizeof at);
      return;
    }
    for (auto& y : at) y = -1;
    for (int l = g.begin; l < g.end; ++l) {
      const int64_t y = r.label(g.first + l);
      if (y != r.ignore_index && !(weighed(r) && weight_of<S>(r, g.first + l, y) == 0))
        at[l] = static_cast<typename V::Int>(y);
    }
  }
  IMAE_INLINE typename V::Int operator[](int l) const { return at[l]; }
  IMAE_INLINE bool live(int l) const { return at[l] >= 0; }
  IMAE_INLINE typename V::Ints all() const {
    typename V::Ints y;
    __builtin_memcpy(&y, at, sizeof y);
    return y;
  }
};

template <class T>
struct Block {
  using S = ScalarOf<T>;
  using V = Vector<S>;
  int count = 0;  // groups
  Group group[kBlock];
  Labels<S> labels[kBlock];
  Statistics<typename V::Real> statistics[kBlock];
  Outcome<V> outcome[kBlock];
  Coefficients<typename V::Real> coefficients[kBlock];  // of the gradient, scaled
  // Exponentials, for writing to go on from: rows padded to whole vectors, or tiles, a vector for each class. In a row
  // that is not kept, a part replaces the one before.
  alignas(64) S near[kBlockBytes / sizeof(S)];
  S* scratch = near;
  bool kept = false;
  Outlet<T> outlet;

  Block() = default;
  Block(const Block&) = delete;
  ~Block() {
    outlet.close();
    if (scratch != near) std::free(scratch);
  }
  // For rows of classes that lie next to one another. With AVX-512 long rows of float are kept only to be sent:
  // without, the memory sets the pace, not the exponentials.
  void open(const void* grad, int64_t N, int64_t C) {
    constexpr bool kKeepLong = IMAE_VECTOR_BYTES < 64 || sizeof(T) != 4;
    const int64_t bytes = padded<S>(C) * int64_t(sizeof(S));
    const bool sent = Outlet<T>::serves(grad, N, C);
    if ((kKeepLong || sent) && bytes > kBlockBytes && bytes <= kRowBytes)
      if (void* far = std::aligned_alloc(64, (bytes + 63) / 64 * 64)) scratch = static_cast<S*>(far);
    kept = bytes <= kBlockBytes || scratch != near;
    if (sent && kept) outlet.open(C, scratch, padded<S>(C));
  }
  IMAE_INLINE S* row(int64_t C, int k, int l) { return kept ? scratch + (k * V::kLanes + l) * padded<S>(C) : scratch; }
  IMAE_INLINE S* tile(int k) { return scratch + k * kMaxTile * V::kLanes; }
  IMAE_INLINE const S* tile(int k) const { return scratch + k * kMaxTile * V::kLanes; }
};

}  // namespace imae::IMAE_ISA
