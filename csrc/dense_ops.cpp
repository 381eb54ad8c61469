// The operators of targets with an amount of every class. Rows come as (N, C): Python moves the classes last.
#include <optional>
#include <tuple>
#include <vector>

#include "dense.h"
#include "reductions.h"

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
    target = ready(target, compute);
    rows.dtype = *dtype_of(logits);
    rows.N = logits.size(0);
    rows.C = logits.size(1);
    rows.logits = logits.const_data_ptr();
    rows.target = target.const_data_ptr();
    rows.smoothing = label_smoothing;
    rows.class_weight = ready_weight(weight, rows.C, logits, compute, kept[0]);
    rows.sample_weight = ready_weight(sample_weight, rows.N, logits, compute, kept[1]);
    rows.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  }
  Outputs run(int64_t reduction) {
    Outputs outputs(rows, logits, compute, {rows.N}, reduction);
    backend_of(logits).dense(rows, outputs.reduction);
    return outputs;
  }
};

// The loss, and the divisor for `dense_backward`. reduction: as for `forward`.
std::tuple<Tensor, Tensor> dense_forward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                         const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                         double label_smoothing, int64_t reduction) {
  DenseCall call(logits, target, formula, weight, sample_weight, label_smoothing);
  const Outputs outputs = call.run(reduction);
  return {outputs.loss, outputs.divisor};
}

// The loss and its gradient, in one pass; not for normalized, whose divisor is known at the end.
std::tuple<Tensor, Tensor> dense_forward_backward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                                  const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                                  double label_smoothing, int64_t reduction) {
  REFUSE_UNLESS(reduction != kNormalized && backend_of(logits).in_one_pass);
  DenseCall call(logits, target, formula, weight, sample_weight, label_smoothing);
  const Tensor grad = gradient_of(call.rows, call.logits);
  return {call.run(reduction).loss, grad};
}

Tensor dense_backward(const Tensor& logits, const Tensor& target, const Numbers& formula, const OptionalTensor& weight,
                      const OptionalTensor& sample_weight, double label_smoothing, const Tensor& divisor,
                      const Tensor& grad_output) {
  DenseCall call(logits, target, formula, weight, sample_weight, label_smoothing);
  const Tensor grad = gradient_of(call.rows, call.logits);
  const Tensor outer = set_upstream(call.rows, call.logits, call.compute, {call.rows.N}, divisor, grad_output);
  backend_of(call.logits).dense(call.rows, {});
  return grad;
}

}  // namespace

void implement_dense(torch::stable::detail::StableLibrary& m) {
  m.impl("dense_forward", TORCH_BOX(&dense_forward));
  m.impl("dense_forward_backward", TORCH_BOX(&dense_forward_backward));
  m.impl("dense_backward", TORCH_BOX(&dense_backward));
}

STABLE_TORCH_LIBRARY_FRAGMENT(imae_ext, m) {
#define DENSE_ARGUMENTS \
  "(Tensor logits, Tensor target, float[] formula, Tensor? weight, Tensor? sample_weight, float label_smoothing, "
  m.def("dense_forward" DENSE_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("dense_forward_backward" DENSE_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("dense_backward" DENSE_ARGUMENTS "Tensor divisor, Tensor grad_output) -> Tensor");
#undef DENSE_ARGUMENTS
}

}  // namespace imae
