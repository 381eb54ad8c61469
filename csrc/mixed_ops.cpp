// The operators of two labels a row. Rows come as (N, C): Python moves the classes last.
#include <optional>
#include <tuple>
#include <vector>

#include "mixed.h"
#include "reductions.h"

namespace imae {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Numbers = std::vector<double>;

// The tensors of one call, dense, with the kernels' view of them. They must outlive the view.
struct MixedCall {
  Tensor logits, target, other;
  OptionalTensor kept[4];
  ScalarType compute;
  Mixed rows;

  MixedCall(const Tensor& logits_, const Tensor& target_, const Tensor& other_, const Tensor& lam,
            const OptionalTensor& other_lam, const Numbers& formula, const OptionalTensor& weight,
            const OptionalTensor& sample_weight, int64_t ignore_index)
      : logits(dense(logits_)),
        target(labels(target_)),
        other(labels(other_)),
        compute(logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float) {
    REFUSE_UNLESS(dtype_of(logits).has_value() && logits.dim() == 2);
    REFUSE_UNLESS(logits.size(1) >= 1 && logits.size(1) <= INT32_MAX / 2);
    REFUSE_UNLESS(backend_of(logits).mixed);
    rows.dtype = *dtype_of(logits);
    rows.N = logits.size(0);
    rows.C = logits.size(1);
    for (const Tensor* t : {&target, &other})
      REFUSE_UNLESS(t->dim() == 1 && t->size(0) == rows.N && same_device(*t, logits));
    rows.logits = logits.const_data_ptr();
    rows.target = static_cast<const int64_t*>(target.const_data_ptr());
    rows.other = static_cast<const int64_t*>(other.const_data_ptr());
    rows.ignore_index = ignore_index;
    rows.lam = amounts(lam, kept[0], rows.lam_is_scalar);
    if (other_lam) rows.other_lam = amounts(*other_lam, kept[1], rows.other_lam_is_scalar);
    rows.class_weight = ready_weight(weight, rows.C, logits, compute, kept[2]);
    rows.sample_weight = ready_weight(sample_weight, rows.N, logits, compute, kept[3]);
    rows.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  }
  Outputs run(int64_t reduction) {
    Outputs outputs(rows, logits, compute, {rows.N}, reduction);
    backend_of(logits).mixed(rows, outputs.reduction);
    return outputs;
  }

 private:
  static Tensor labels(const Tensor& t) {
    REFUSE_UNLESS(t.scalar_type() == ScalarType::Long || t.scalar_type() == ScalarType::Int);
    return ready(t, ScalarType::Long);
  }
  // One for each row, or one for all.
  const void* amounts(const Tensor& t, OptionalTensor& keep, bool& is_scalar) const {
    is_scalar = t.dim() == 0;
    REFUSE_UNLESS(is_scalar || (t.dim() == 1 && t.size(0) == rows.N));
    REFUSE_UNLESS(dtype_of(t).has_value() && same_device(t, logits));
    keep = ready(t, compute);
    return keep->const_data_ptr();
  }
};

// The loss, and the divisor for `mixed_backward`. reduction: as for `forward`.
std::tuple<Tensor, Tensor> mixed_forward(const Tensor& logits, const Tensor& target, const Tensor& other,
                                         const Tensor& lam, const OptionalTensor& other_lam, const Numbers& formula,
                                         const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                         int64_t ignore_index, int64_t reduction) {
  MixedCall call(logits, target, other, lam, other_lam, formula, weight, sample_weight, ignore_index);
  const Outputs outputs = call.run(reduction);
  return {outputs.loss, outputs.divisor};
}

// The loss and its gradient, in one pass; not for normalized, whose divisor is known at the end.
std::tuple<Tensor, Tensor> mixed_forward_backward(const Tensor& logits, const Tensor& target, const Tensor& other,
                                                  const Tensor& lam, const OptionalTensor& other_lam,
                                                  const Numbers& formula, const OptionalTensor& weight,
                                                  const OptionalTensor& sample_weight, int64_t ignore_index,
                                                  int64_t reduction) {
  REFUSE_UNLESS(reduction != kNormalized && backend_of(logits).in_one_pass);
  MixedCall call(logits, target, other, lam, other_lam, formula, weight, sample_weight, ignore_index);
  const Tensor grad = gradient_of(call.rows, call.logits);
  return {call.run(reduction).loss, grad};
}

Tensor mixed_backward(const Tensor& logits, const Tensor& target, const Tensor& other, const Tensor& lam,
                      const OptionalTensor& other_lam, const Numbers& formula, const OptionalTensor& weight,
                      const OptionalTensor& sample_weight, int64_t ignore_index, const Tensor& divisor,
                      const Tensor& grad_output) {
  MixedCall call(logits, target, other, lam, other_lam, formula, weight, sample_weight, ignore_index);
  const Tensor grad = gradient_of(call.rows, call.logits);
  const Tensor outer = set_upstream(call.rows, call.logits, call.compute, {call.rows.N}, divisor, grad_output);
  backend_of(call.logits).mixed(call.rows, {});
  return grad;
}

}  // namespace

void implement_mixed(torch::stable::detail::StableLibrary& m) {
  m.impl("mixed_forward", TORCH_BOX(&mixed_forward));
  m.impl("mixed_forward_backward", TORCH_BOX(&mixed_forward_backward));
  m.impl("mixed_backward", TORCH_BOX(&mixed_backward));
}

STABLE_TORCH_LIBRARY_FRAGMENT(imae_ext, m) {
#define MIXED_ARGUMENTS                                                                                           \
  "(Tensor logits, Tensor target, Tensor other, Tensor lam, Tensor? other_lam, float[] formula, Tensor? weight, " \
  "Tensor? sample_weight, int ignore_index, "
  m.def("mixed_forward" MIXED_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("mixed_forward_backward" MIXED_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("mixed_backward" MIXED_ARGUMENTS "Tensor divisor, Tensor grad_output) -> Tensor");
#undef MIXED_ARGUMENTS
}

}  // namespace imae
