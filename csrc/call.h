// One call's tensors: checked, allocated, and seen as the kernels see them. Shared by the CPU and the CUDA operators.
//
// Bad input is refused here with a plain error; imae_ext/checks.py then says which rule was broken.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "geometry.h"
#include "kernels.h"

namespace imae {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
namespace ts = torch::stable;

enum ReductionCode : int64_t { kNone, kMean, kSum, kNormalized };

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
// contiguous, of the loss's dtype
inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes, ScalarType dtype) {
  std::vector<int64_t> strides(sizes.size());
  int64_t stride = 1;
  for (size_t k = sizes.size(); k-- > 0;) strides[k] = stride, stride *= std::max<int64_t>(1, sizes[k]);
  return new_strided(like, sizes, strides.data(),
                     dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32());
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

// The tensors of one call, checked, with the kernel's view of them. They must outlive the view.
struct Call {
  Tensor logits, target;
  std::optional<Tensor> grad;  // what the kernel writes; finished_grad() is what the caller gets
  ScalarType compute;          // dtype of the loss
  Rows rows;

  Call(const Tensor& logits_, const Tensor& target_, int64_t ignore_index, std::optional<Tensor> out, bool want_grad,
       bool (*reads_in_place)(const Rows&))
      : logits(logits_), target(dense(target_)), grad(std::move(out)) {
    check();
    if (grad) check_out();
    compute = logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    rows.dtype = *dtype_of(logits);
    rows.N = shape_of(logits).N();
    rows.C = shape_of(logits).C();
    rows.target = target.const_data_ptr();
    rows.target_is_int32 = target.scalar_type() == ScalarType::Int;
    rows.ignore_index = ignore_index;
    if (want_grad && !grad) grad = new_like(logits);
    if (!in_place(reads_in_place)) rearrange(reads_in_place);
    rows.logits = logits.const_data_ptr();
  }

  // The gradient with the layout that the caller expects.
  Tensor finished_grad() const {
    if (!wanted_) return *grad;
    Tensor to = *wanted_;
    ts::copy_(to, classes_last_ ? ts::reshape(ts::transpose(*grad, 1, 2), to.sizes()) : *grad);
    return to;
  }

 private:
  std::optional<Tensor> wanted_;  // if the kernel writes elsewhere
  bool classes_last_ = false;     // what it reads and writes is (N, d1 * d2 * ..., C)

  void check() const {
    REFUSE_UNLESS(dtype_of(logits).has_value());
    REFUSE_UNLESS(target.scalar_type() == ScalarType::Long || target.scalar_type() == ScalarType::Int);
    REFUSE_UNLESS(same_device(logits, target));
    REFUSE_UNLESS(logits.dim() >= 1);
    const Shape shape = shape_of(logits);
    REFUSE_UNLESS(shape.C() > 0 && shape.C() <= INT32_MAX / 2);  // within a row, the kernels count with 32 bits
    REFUSE_UNLESS(target.dim() == logits.dim() - 1);
    for (int64_t k = 0, j = 0; k < logits.dim(); ++k)
      if (k != shape.class_dim()) REFUSE_UNLESS(target.size(j++) == logits.size(k));
  }
  void check_out() const {
    REFUSE_UNLESS(grad->scalar_type() == logits.scalar_type());
    REFUSE_UNLESS(same_device(*grad, logits));
    REFUSE_UNLESS(std::ranges::equal(grad->sizes(), logits.sizes()));
    REFUSE_UNLESS(!overlaps_itself(shape_of(*grad)));
    const auto to = reinterpret_cast<uintptr_t>(grad->mutable_data_ptr());
    const auto from = reinterpret_cast<uintptr_t>(logits.const_data_ptr());
    const auto size = static_cast<uintptr_t>(logits.element_size());
    const bool apart = to + size * span(shape_of(*grad)) <= from || from + size * span(shape_of(logits)) <= to;
    REFUSE_UNLESS(apart || logits.numel() == 0);
  }
  bool in_place(bool (*reads_in_place)(const Rows&)) {
    rows.grad = grad ? grad->mutable_data_ptr() : nullptr;
    const auto strides = grad ? grad->strides() : logits.strides();
    rows.logits_view = rows.grad_view = View{};
    return make_views(shape_of(logits), strides.data(), rows.logits_view, rows.grad_view) && reads_in_place(rows);
  }
  // A layout that no kernel walks: work on a copy, with the classes where they are if a kernel walks that.
  void rearrange(bool (*reads_in_place)(const Rows&)) {
    const std::optional<Tensor> to = grad;
    const auto copied = [&] {
      logits = ts::contiguous(logits);
      if (to && (!to->is_contiguous() || classes_last_)) wanted_ = to, grad = new_like(logits);
    };
    copied();
    if (in_place(reads_in_place)) return;
    classes_last_ = true;
    logits = ts::transpose(ts::flatten(logits, 2, -1), 1, 2);
    copied();
    rows.grad = grad ? grad->mutable_data_ptr() : nullptr;
    rows.logits_view = rows.grad_view = View{};
    rows.logits_view.outer_stride = rows.grad_view.outer_stride = rows.C;
    REFUSE_UNLESS(reads_in_place(rows));
  }
};

// What backward was given: the rows' saved coefficients, and what they are multiplied by.
inline void check_backward(const Call& call, const Tensor& coefficients, const Tensor& divisor,
                           const Tensor& grad_output) {
  REFUSE_UNLESS(coefficients.scalar_type() == call.compute && coefficients.numel() == 4 * call.rows.N);
  REFUSE_UNLESS(divisor.scalar_type() == call.compute && divisor.numel() == 1);
  REFUSE_UNLESS(grad_output.scalar_type() == call.compute);
  REFUSE_UNLESS(grad_output.numel() == call.rows.N || grad_output.dim() == 0);
  for (const Tensor* t : {&coefficients, &divisor, &grad_output}) REFUSE_UNLESS(same_device(*t, call.logits));
}

// A gradient to be scaled in place, from its first element to its last, and by what.
inline void check_scale(const Tensor& grad, const Tensor& by, const Tensor& target) {
  REFUSE_UNLESS(dtype_of(grad).has_value());
  REFUSE_UNLESS(grad.is_contiguous() || (span(shape_of(grad)) == grad.numel() && !overlaps_itself(shape_of(grad))));
  REFUSE_UNLESS(by.numel() == 1 && (by.scalar_type() == ScalarType::Double || by.scalar_type() == ScalarType::Float));
  REFUSE_UNLESS(same_device(by, grad) && same_device(target, grad));
  REFUSE_UNLESS(target.scalar_type() == ScalarType::Long || target.scalar_type() == ScalarType::Int);
  REFUSE_UNLESS(grad.dim() >= 1 && shape_of(grad).C() > 0 && grad.numel() == target.numel() * shape_of(grad).C());
}

inline std::optional<Tensor> class_weight_of(const std::optional<Tensor>& weight, const Tensor& logits, int64_t C,
                                             ScalarType compute) {
  if (!weight) return std::nullopt;
  REFUSE_UNLESS(weight->dim() == 1 && weight->size(0) == C);
  REFUSE_UNLESS(same_device(*weight, logits));
  REFUSE_UNLESS(dtype_of(*weight).has_value());
  return dense(weight->scalar_type() == compute ? *weight : ts::to(*weight, compute));
}
inline std::optional<Tensor> class_weight_of(const std::optional<Tensor>& weight, const Call& call) {
  return class_weight_of(weight, call.logits, call.rows.C, call.compute);
}

// A gradient that has been computed, seen as the kernels see it: which of its rows count.
struct Finished {
  Tensor target, grad;  // grad: the caller's, or a copy if that has a layout that two strides do not describe
  std::optional<Tensor> wanted, weight;
  ScalarType compute;
  Rows rows;

  Finished(const Tensor& grad_, const Tensor& target_, const std::optional<Tensor>& weight_, int64_t ignore_index)
      : target(dense(target_)), grad(grad_) {
    compute = grad.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
    View unused;
    if (!make_views(shape_of(grad), grad.strides().data(), unused, rows.grad_view)) {
      wanted = grad;
      grad = ts::contiguous(grad);
      unused = rows.grad_view = View{};
      make_views(shape_of(grad), grad.strides().data(), unused, rows.grad_view);
    }
    rows.dtype = *dtype_of(grad);
    rows.N = target.numel();
    rows.C = shape_of(grad).C();
    rows.target = target.const_data_ptr();
    rows.target_is_int32 = target.scalar_type() == ScalarType::Int;
    rows.ignore_index = ignore_index;
    rows.grad = grad.mutable_data_ptr();
    weight = class_weight_of(weight_, grad, rows.C, compute);
    if (weight) rows.class_weight = weight->const_data_ptr();
  }
  void give_back() const {
    if (!wanted) return;
    Tensor to = *wanted;
    ts::copy_(to, grad);
  }
};

}  // namespace imae
