// The few things about tensors that the stable ABI leaves to its users.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "geometry.h"
#include "rows.h"

namespace imae {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace ts = torch::stable;

#define REFUSE_UNLESS(condition) STD_TORCH_CHECK(condition, "imae_ext: refused: ", #condition)

inline std::optional<DType> dtype_of(const Tensor& logits) {
  switch (logits.scalar_type()) {
    case ScalarType::Double: return DType::kFloat64;
    case ScalarType::Float: return DType::kFloat32;
    case ScalarType::Half: return DType::kFloat16;
    case ScalarType::BFloat16: return DType::kBFloat16;
    default: return std::nullopt;
  }
}

// is_contiguous() is a plain call; ts::contiguous() goes through the dispatcher
inline Tensor dense(const Tensor& t) { return t.is_contiguous() ? t : ts::contiguous(t); }

inline Shape shape_of(const Tensor& t) { return {t.sizes().data(), t.strides().data(), t.dim()}; }

// New memory where `like` is. A plain call: ts::new_empty() and ts::empty_like() go through the dispatcher.
inline Tensor new_strided(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes, const int64_t* strides,
                          int32_t dtype) {
  int32_t device_type = 0, device_index = 0;
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides, dtype,
                                                  device_type, device_index, &made));
  return Tensor(made);
}
// contiguous, of the loss's dtype, or bool
inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t k = sizes.size(); k-- > 0;) strides[k] = stride, stride *= std::max<int64_t>(1, sizes[k]);
  return new_strided(like, sizes, strides.data(),
                     dtype == ScalarType::Double ? aoti_torch_dtype_float64()
                     : dtype == ScalarType::Bool ? aoti_torch_dtype_bool()
                                                 : aoti_torch_dtype_float32());
}
// with the layout of t where that is dense
inline Tensor new_like(const Tensor& t) {
  if (!t.is_contiguous()) return ts::empty_like(t);
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
  return new_strided(t, t.sizes(), t.strides().data(), dtype);
}

inline bool same_device(const Tensor& x, const Tensor& y) {
  int32_t type[2] = {}, index[2] = {};
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &type[0]));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(y.get(), &type[1]));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &index[0]));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(y.get(), &index[1]));
  return type[0] == type[1] && index[0] == index[1];
}

}  // namespace imae
