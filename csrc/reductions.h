// What the operators of dense, binary and two-label targets share: the loss that rows become, and the gradient.
#pragma once
#include <optional>
#include <tuple>

#include "backend.h"
#include "tensors.h"

namespace imae {

enum ReductionCode : int64_t { kNone, kMean, kSum, kNormalized };  // as Python numbers them

// Dense and of the dtype of computation.
inline Tensor ready(const Tensor& t, ScalarType compute) {
  return dense(t.scalar_type() == compute ? t : ts::to(t, compute));
}
// A weight of so many entries, or null; `keep` holds its memory.
inline const void* ready_weight(const std::optional<Tensor>& weight, int64_t count, const Tensor& logits,
                                ScalarType compute, std::optional<Tensor>& keep) {
  if (!weight) return nullptr;
  REFUSE_UNLESS(weight->dim() == 1 && weight->size(0) == count && dtype_of(*weight).has_value());
  REFUSE_UNLESS(same_device(*weight, logits));
  keep = ready(*weight, compute);
  return keep->const_data_ptr();
}

// Where a kernel writes the loss and its divisor. K: Dense, Binary or Mixed.
struct Outputs {
  Tensor loss, divisor;
  Reduction reduction;

  template <class K>
  Outputs(K& kernel, const Tensor& logits, ScalarType compute, torch::headeronly::IntHeaderOnlyArrayRef rows,
          int64_t code)
      : loss(code == kNone ? new_tensor(logits, rows, compute) : new_tensor(logits, {}, compute)),
        divisor(new_tensor(logits, {}, compute)) {
    REFUSE_UNLESS(code >= kNone && code <= kNormalized);
    REFUSE_UNLESS(code != kNormalized || !kernel.formula->needs_all_logits());
    reduction.divisor = divisor.mutable_data_ptr();
    (code == kNone ? kernel.value : reduction.loss) = loss.mutable_data_ptr();
    if (code == kMean) reduction.divide_by = Reduction::kTargets;
    if (code == kNormalized) reduction.divide_by = Reduction::kExampleWeights;
    reduction.mean_gradient = code == kMean && kernel.grad != nullptr;
  }
};

// Fresh memory for the gradient.
template <class K>
Tensor gradient_of(K& kernel, const Tensor& logits) {
  const Tensor grad = new_like(logits);
  kernel.grad = grad.mutable_data_ptr();
  if (const Backend& backend = backend_of(logits); backend.make_ready)
    backend.make_ready(kernel.grad, grad.numel() * static_cast<int64_t>(grad.element_size()));
  return grad;
}

// What the gradient is multiplied by. Returns grad_output as the kernel reads it, for its memory.
template <class K>
Tensor set_upstream(K& kernel, const Tensor& logits, ScalarType compute, torch::headeronly::IntHeaderOnlyArrayRef rows,
                    const Tensor& divisor, const Tensor& grad_output) {
  REFUSE_UNLESS(divisor.scalar_type() == compute && divisor.numel() == 1 && same_device(divisor, logits));
  REFUSE_UNLESS(grad_output.scalar_type() == compute && same_device(grad_output, logits));
  REFUSE_UNLESS(grad_output.dim() == 0 || std::ranges::equal(grad_output.sizes(), rows));
  const Tensor outer = dense(grad_output);
  kernel.grad_output = outer.const_data_ptr();
  kernel.grad_output_is_scalar = grad_output.dim() == 0;
  kernel.divisor = divisor.const_data_ptr();
  return outer;
}

}  // namespace imae
