// The operators of targets with an amount of every class. Rows come as (N, C): Python moves the classes last.
#include <optional>
#include <tuple>
#include <vector>

#include "call.h"
#include "dense.h"

namespace imae {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Numbers = std::vector<double>;

// The tensors of one call, dense, with the kernels' view of them. They must outlive the view.
struct DenseCall {
  Tensor logits, target;
  OptionalTensor kept[2];
  ScalarType compute;
  Dense rows;

  DenseCall(const Tensor& logits_, const Tensor& target_, const Numbers& formula, const OptionalTensor& weight,
            const OptionalTensor& sample_weight, double label_smoothing)
      : logits(dense(logits_)),
        target(target_),
        compute(logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float) {
    REFUSE_UNLESS(dtype_of(logits).has_value() && dtype_of(target).has_value() && same_device(logits, target));
    REFUSE_UNLESS(logits.dim() == 2 && std::ranges::equal(logits.sizes(), target.sizes()));
    REFUSE_UNLESS(logits.size(1) >= 2 && logits.size(1) <= INT32_MAX / 2);
    REFUSE_UNLESS(label_smoothing >= 0 && label_smoothing <= 1);
    REFUSE_UNLESS(backend_of(logits).dense);
    target = ready(target);
    rows.dtype = *dtype_of(logits);
    rows.N = logits.size(0);
    rows.C = logits.size(1);
    rows.logits = logits.const_data_ptr();
    rows.target = target.const_data_ptr();
    rows.smoothing = label_smoothing;
    rows.class_weight = weights(weight, rows.C, kept[0]);
    rows.sample_weight = weights(sample_weight, rows.N, kept[1]);
    rows.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  }
  Tensor made(torch::headeronly::IntHeaderOnlyArrayRef sizes) const { return new_tensor(logits, sizes, compute); }

 private:
  Tensor ready(const Tensor& t) const { return dense(t.scalar_type() == compute ? t : ts::to(t, compute)); }
  const void* weights(const OptionalTensor& weight, int64_t count, OptionalTensor& keep) const {
    if (!weight) return nullptr;
    REFUSE_UNLESS(weight->dim() == 1 && weight->size(0) == count && dtype_of(*weight).has_value());
    REFUSE_UNLESS(same_device(*weight, logits));
    keep = ready(*weight);
    return keep->const_data_ptr();
  }
};

// The loss, and the divisor for `dense_backward`. reduction: as for `forward`.
std::tuple<Tensor, Tensor> dense_forward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                         const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                         double label_smoothing, int64_t reduction) {
  enum : int64_t { kNone, kMean, kSum, kNormalized };
  REFUSE_UNLESS(reduction >= kNone && reduction <= kNormalized);
  DenseCall call(logits, target, formula, weight, sample_weight, label_smoothing);
  REFUSE_UNLESS(reduction != kNormalized || !call.rows.formula->needs_all_logits());
  const Tensor loss = reduction == kNone ? call.made({call.rows.N}) : call.made({}), divisor = call.made({});
  Reduction r;
  r.divisor = divisor.mutable_data_ptr();
  (reduction == kNone ? call.rows.value : r.loss) = loss.mutable_data_ptr();
  if (reduction == kMean) r.divide_by = Reduction::kTargets;
  if (reduction == kNormalized) r.divide_by = Reduction::kExampleWeights;
  backend_of(call.logits).dense(call.rows, r);
  return {loss, divisor};
}

Tensor dense_backward(const Tensor& logits, const Tensor& target, const Numbers& formula, const OptionalTensor& weight,
                      const OptionalTensor& sample_weight, double label_smoothing, const Tensor& divisor,
                      const Tensor& grad_output) {
  DenseCall call(logits, target, formula, weight, sample_weight, label_smoothing);
  REFUSE_UNLESS(divisor.scalar_type() == call.compute && divisor.numel() == 1 && same_device(divisor, logits));
  REFUSE_UNLESS(grad_output.scalar_type() == call.compute && same_device(grad_output, logits));
  REFUSE_UNLESS(grad_output.dim() == 0 || (grad_output.dim() == 1 && grad_output.size(0) == call.rows.N));
  const Tensor grad = new_like(call.logits), outer = dense(grad_output);
  call.rows.grad = grad.mutable_data_ptr();
  if (backend_of(call.logits).make_ready)
    backend_of(call.logits).make_ready(call.rows.grad, grad.numel() * static_cast<int64_t>(grad.element_size()));
  call.rows.grad_output = outer.const_data_ptr();
  call.rows.grad_output_is_scalar = grad_output.dim() == 0;
  call.rows.divisor = divisor.const_data_ptr();
  backend_of(call.logits).dense(call.rows, {});
  return grad;
}

}  // namespace

void implement_dense(torch::stable::detail::StableLibrary& m) {
  m.impl("dense_forward", TORCH_BOX(&dense_forward));
  m.impl("dense_backward", TORCH_BOX(&dense_backward));
}

STABLE_TORCH_LIBRARY_FRAGMENT(imae_ext, m) {
#define DENSE_ARGUMENTS \
  "(Tensor logits, Tensor target, float[] formula, Tensor? weight, Tensor? sample_weight, float label_smoothing, "
  m.def("dense_forward" DENSE_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("dense_backward" DENSE_ARGUMENTS "Tensor divisor, Tensor grad_output) -> Tensor");
#undef DENSE_ARGUMENTS
}

}  // namespace imae
