// One call's tensors: checked, allocated, and seen as the kernels see them.
//
// Bad input is refused here with a plain error; imae_ext/checks.py then says which rule was broken.
#pragma once
#include <optional>
#include <utility>

#include "backend.h"
#include "tensors.h"

namespace imae {

// What the operators take beside logits and target, in the order that they have everywhere.
struct Weights {
  std::optional<Tensor> of_classes, of_samples;  // (C,); the target's shape
};

// The tensors of one call, checked, with the kernels' view of them. They must outlive the view.
struct Call {
  Tensor logits, target;
  std::optional<Tensor> grad;  // what the kernel writes; deliver_gradient() is what the caller gets
  ScalarType compute;          // dtype of the loss
  const Backend& backend;
  Rows rows;

  enum class Gradient { kNone, kFresh, kOut, kInPlace };  // kInPlace: over the logits themselves

  Call(const Tensor& logits_, const Tensor& target_, const Weights& weights, int64_t ignore_index, Gradient wish,
       std::optional<Tensor> out = std::nullopt)
      : logits(logits_),
        target(dense(target_)),
        grad(std::move(out)),
        compute(logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float),
        backend(backend_of(logits)),
        wish_(wish) {
    check();
    if (wish == Gradient::kOut) check_out();
    rows.dtype = *dtype_of(logits);
    const Shape shape = shape_of(logits);
    rows.N = shape.N();
    rows.C = shape.C();
    rows.target = target.const_data_ptr();
    rows.target_is_int32 = target.scalar_type() == ScalarType::Int;
    rows.ignore_index = ignore_index;
    add(weights);
    if (wish == Gradient::kFresh) grad = new_like(logits);
    if (!in_place()) rearrange();
    rows.logits = logits.const_data_ptr();
    if (wish == Gradient::kFresh && backend.make_ready)
      backend.make_ready(grad->mutable_data_ptr(), grad->numel() * static_cast<int64_t>(grad->element_size()));
  }

  // The gradient with the layout that the caller expects; where the kernel wrote elsewhere, it is copied there.
  Tensor deliver_gradient() const {
    if (!wanted_) return *grad;
    Tensor to = *wanted_;
    ts::copy_(to, classes_last_ ? ts::reshape(ts::transpose(*grad, 1, 2), to.sizes()) : *grad);
    return to;
  }

  // of the loss's dtype, contiguous
  Tensor made(torch::headeronly::IntHeaderOnlyArrayRef sizes) const { return new_tensor(logits, sizes, compute); }

 private:
  Gradient wish_;
  std::optional<Tensor> wanted_;  // if the kernel writes elsewhere
  std::optional<Tensor> class_weight_, sample_weight_;
  bool classes_last_ = false;  // what it reads and writes is (N, d1 * d2 * ..., C)

  void check() const {
    REFUSE_UNLESS(dtype_of(logits).has_value());
    REFUSE_UNLESS(target.scalar_type() == ScalarType::Long || target.scalar_type() == ScalarType::Int);
    REFUSE_UNLESS(same_device(logits, target));
    REFUSE_UNLESS(logits.dim() >= 1);
    const Shape shape = shape_of(logits), of_target = shape_of(target);
    REFUSE_UNLESS(shape.C() > 0 && shape.C() <= INT32_MAX / 2);  // within a row, the kernels count with 32 bits
    REFUSE_UNLESS(of_target.dim == shape.dim - 1);
    for (int64_t k = 0, j = 0; k < shape.dim; ++k)
      if (k != shape.class_dim()) REFUSE_UNLESS(of_target.sizes[j++] == shape.sizes[k]);
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
  // Dense and in the dtype of the loss. NaN is allowed: it is the row's, or all's under mean.
  Tensor ready(const Tensor& weight) const {
    REFUSE_UNLESS(same_device(weight, logits));
    REFUSE_UNLESS(dtype_of(weight).has_value());
    return dense(weight.scalar_type() == compute ? weight : ts::to(weight, compute));
  }
  void add(const Weights& weights) {
    if (weights.of_classes) {
      REFUSE_UNLESS(weights.of_classes->dim() == 1 && weights.of_classes->size(0) == rows.C);
      class_weight_ = ready(*weights.of_classes);
      rows.class_weight = class_weight_->const_data_ptr();
    }
    if (weights.of_samples) {
      REFUSE_UNLESS(std::ranges::equal(weights.of_samples->sizes(), target.sizes()));
      sample_weight_ = ready(*weights.of_samples);
      rows.sample_weight = sample_weight_->const_data_ptr();
    }
  }
  bool in_place() {
    rows.grad = grad ? grad->mutable_data_ptr() : nullptr;
    const auto strides = grad ? grad->strides() : logits.strides();
    rows.logits_view = rows.grad_view = View{};
    return make_views(shape_of(logits), strides.data(), rows.logits_view, rows.grad_view) &&
           backend.reads_in_place(rows);
  }
  // A layout that no kernel walks: work on a copy, with the classes where they are if a kernel walks that.
  void rearrange() {
    const std::optional<Tensor> to = grad;
    const auto copied = [&] {
      logits = ts::contiguous(logits);
      if (to && (!to->is_contiguous() || classes_last_))
        wanted_ = to, grad = wish_ == Gradient::kInPlace ? logits : new_like(logits);
    };
    copied();
    if (in_place()) return;
    classes_last_ = true;
    logits = ts::transpose(ts::flatten(logits, 2, -1), 1, 2);
    copied();
    rows.grad = grad ? grad->mutable_data_ptr() : nullptr;
    rows.logits_view = rows.grad_view = View{};
    rows.logits_view.outer_stride = rows.grad_view.outer_stride = rows.C;
    REFUSE_UNLESS(backend.reads_in_place(rows));
  }
};

}  // namespace imae
