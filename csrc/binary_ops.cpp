// The operators of binary and multi-label losses. As in ops.cpp: checked here, run by the device's backend.
#include <optional>
#include <tuple>
#include <vector>

#include "binary.h"
#include "reductions.h"

namespace imae {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Numbers = std::vector<double>;

// The tensors of one call, dense, with the kernels' view of them. They must outlive the view.
struct BinaryCall {
  Tensor logits, target;
  OptionalTensor kept[3];
  ScalarType compute;
  Binary binary;

  BinaryCall(const Tensor& logits_, const Tensor& target_, const Numbers& formula, const OptionalTensor& weight,
             const OptionalTensor& pos_weight, const OptionalTensor& sample_weight, int64_t ignore_index)
      : logits(dense(logits_)),
        target(dense(target_)),
        compute(logits.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float) {
    REFUSE_UNLESS(dtype_of(logits).has_value());
    REFUSE_UNLESS(same_device(logits, target));
    REFUSE_UNLESS(std::ranges::equal(logits.sizes(), target.sizes()));
    binary.dtype = *dtype_of(logits);
    binary.count = logits.numel();
    binary.ignore_index = ignore_index;
    binary.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
    look_at_target();
    binary.logits = logits.const_data_ptr();
    binary.weight = spread(weight, kept[0]);
    binary.pos_weight = spread(pos_weight, kept[1]);
    binary.sample_weight = spread(sample_weight, kept[2]);
  }
  Outputs run(int64_t reduction) {
    Outputs outputs(binary, logits, compute, logits.sizes(), reduction);
    backend_of(logits).binary(logits, binary, outputs.reduction);
    return outputs;
  }

 private:
  void look_at_target() {
    switch (target.scalar_type()) {
      case ScalarType::Bool: binary.has_ignored = false; [[fallthrough]];
      case ScalarType::Byte: binary.target_type = AmountType::kUint8; break;
      case ScalarType::Int: binary.target_type = AmountType::kInt32; break;
      case ScalarType::Long: binary.target_type = AmountType::kInt64; break;
      case ScalarType::Half:
      case ScalarType::BFloat16: target = ts::to(target, ScalarType::Float); [[fallthrough]];
      case ScalarType::Float: binary.target_type = AmountType::kFloat32; break;
      case ScalarType::Double: binary.target_type = AmountType::kFloat64; break;
      default: REFUSE_UNLESS(!"a target of bool, integers or floats");
    }
    binary.target = target.const_data_ptr();
  }
  // Ones may lead and trail in its shape, and what is between must be the logits' own sizes. Python expands others.
  Spread spread(const OptionalTensor& weight, OptionalTensor& keep) const {
    if (!weight) return {};
    REFUSE_UNLESS(same_device(*weight, logits) && dtype_of(*weight).has_value() && weight->dim() <= logits.dim());
    keep = ready(*weight, compute);
    Spread s{keep->const_data_ptr(), 1, 1};
    int64_t k = weight->dim() - 1, j = logits.dim() - 1;
    for (; k >= 0 && weight->size(k) == 1; --k, --j) s.repeat *= logits.size(j);
    for (; k >= 0 && weight->size(k) == logits.size(j); --k, --j) s.period *= logits.size(j);
    for (; k >= 0; --k) REFUSE_UNLESS(weight->size(k) == 1);
    s.repeat = std::max<int64_t>(1, s.repeat);
    s.period = std::max<int64_t>(1, s.period);
    return s;
  }
};

std::tuple<Tensor, Tensor> binary_forward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                          const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                          const OptionalTensor& sample_weight, int64_t ignore_index,
                                          int64_t reduction) {
  BinaryCall call(logits, target, formula, weight, pos_weight, sample_weight, ignore_index);
  const Outputs outputs = call.run(reduction);
  return {outputs.loss, outputs.divisor};
}

// The loss and its gradient, in one pass; not for normalized, whose divisor is known at the end.
std::tuple<Tensor, Tensor> binary_forward_backward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                                   const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                                   const OptionalTensor& sample_weight, int64_t ignore_index,
                                                   int64_t reduction) {
  REFUSE_UNLESS(reduction != kNormalized && backend_of(logits).in_one_pass);
  BinaryCall call(logits, target, formula, weight, pos_weight, sample_weight, ignore_index);
  const Tensor grad = gradient_of(call.binary, call.logits);
  return {call.run(reduction).loss, grad};
}

Tensor binary_backward(const Tensor& logits, const Tensor& target, const Numbers& formula, const OptionalTensor& weight,
                       const OptionalTensor& pos_weight, const OptionalTensor& sample_weight, int64_t ignore_index,
                       const Tensor& divisor, const Tensor& grad_output) {
  BinaryCall call(logits, target, formula, weight, pos_weight, sample_weight, ignore_index);
  const Tensor grad = gradient_of(call.binary, call.logits);
  const Tensor outer = set_upstream(call.binary, call.logits, call.compute, call.logits.sizes(), divisor, grad_output);
  backend_of(call.logits).binary(call.logits, call.binary, {});
  return grad;
}

}  // namespace

void implement_binary(torch::stable::detail::StableLibrary& m) {
  m.impl("binary_forward", TORCH_BOX(&binary_forward));
  m.impl("binary_forward_backward", TORCH_BOX(&binary_forward_backward));
  m.impl("binary_backward", TORCH_BOX(&binary_backward));
}

STABLE_TORCH_LIBRARY_FRAGMENT(imae_ext, m) {
#define BINARY_ARGUMENTS                                                                                            \
  "(Tensor logits, Tensor target, float[] formula, Tensor? weight, Tensor? pos_weight, Tensor? sample_weight, int " \
  "ignore_index, "
  m.def("binary_forward" BINARY_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("binary_forward_backward" BINARY_ARGUMENTS "int reduction) -> (Tensor, Tensor)");
  m.def("binary_backward" BINARY_ARGUMENTS "Tensor divisor, Tensor grad_output) -> Tensor");
#undef BINARY_ARGUMENTS
}

}  // namespace imae
