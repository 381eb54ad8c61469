// How the rows of a strided tensor are walked: (outer, inner) with the classes in between. No torch.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "rows.h"

namespace imae {

// A tensor of dim() >= 1 whose classes are dimension 1, or 0 if there is no other.
struct Shape {
  const int64_t* sizes;
  const int64_t* strides;
  int64_t dim;
  int64_t class_dim() const { return dim > 1 ? 1 : 0; }
  int64_t C() const { return sizes[class_dim()]; }
  int64_t N() const {
    int64_t n = 1;
    for (int64_t k = 0; k < dim; ++k) n *= k == class_dim() ? 1 : sizes[k];
    return n;
  }
};

// Elements from the first to the last that a tensor has, both included.
inline int64_t span(const Shape& t) {
  int64_t last = 0;
  for (int64_t k = 0; k < t.dim; ++k) {
    if (t.sizes[k] == 0) return 0;
    last += (t.sizes[k] - 1) * t.strides[k];
  }
  return last + 1;
}

// Whether two elements may lie in one place: no dimension may end within the reach of those with smaller strides.
inline bool overlaps_itself(const Shape& t) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t k = 0; k < t.dim; ++k)
    if (t.sizes[k] != 1) dims.emplace_back(t.strides[k], t.sizes[k]);
  std::ranges::sort(dims);
  int64_t reach = 1;
  for (const auto& [stride, size] : dims) {
    if (stride < reach) return span(t) > 0;
    reach += (size - 1) * stride;
  }
  return false;
}

// Views of logits and gradient (of the same sizes) under one numbering of the rows: the target's own order.
// False if more than two strides are needed; the caller then makes the tensors contiguous.
inline bool make_views(const Shape& z, const int64_t* grad_strides, View& logits, View& grad) {
  struct Dim {
    int64_t size, z, g;
  };
  std::vector<Dim> dims;
  dims.reserve(static_cast<size_t>(z.dim));
  for (int64_t k = 0; k < z.dim; ++k) {
    if (k == z.class_dim() || z.sizes[k] == 1) continue;
    const Dim d{z.sizes[k], z.strides[k], grad_strides[k]};
    if (!dims.empty() && dims.back().z == d.size * d.z && dims.back().g == d.size * d.g)
      dims.back() = {dims.back().size * d.size, d.z, d.g};
    else
      dims.push_back(d);
  }
  if (dims.size() > 2) return false;
  const bool any_stride = z.C() == 1 || z.N() == 0;
  logits.class_stride = any_stride ? 1 : z.strides[z.class_dim()];
  grad.class_stride = any_stride ? 1 : grad_strides[z.class_dim()];
  if (dims.empty()) return true;
  const Dim last = dims.back();
  if (dims.size() == 2) {
    logits.inner = grad.inner = last.size;
    logits.inner_stride = last.z, grad.inner_stride = last.g;
    logits.outer_stride = dims[0].z, grad.outer_stride = dims[0].g;
  } else if (last.z == 1 && last.g == 1) {  // adjacent rows
    logits.inner = grad.inner = last.size;
    logits.inner_stride = grad.inner_stride = 1;
  } else {
    logits.outer_stride = last.z, grad.outer_stride = last.g;
  }
  return true;
}

}  // namespace imae
