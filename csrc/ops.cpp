// The operators: what torch calls. LibTorch's stable ABI, no Python, and no word about the device: each checks its
// tensors (call.h), names the outputs that it wants, and hands them to the device's backend.
#include <optional>
#include <tuple>
#include <vector>

#include "call.h"
#include "reductions.h"

namespace imae {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Numbers = std::vector<double>;
using Want = Call::Gradient;

constexpr int kDeviceTypes = 32;  // more than torch has
const Backend* backends[kDeviceTypes] = {};

// Runs the fused kernel for whatever outputs f and r already name, and returns the loss.
Tensor run_forward(const Call& call, Forward f, Reduction r, const Numbers& formula, int64_t reduction) {
  REFUSE_UNLESS(reduction >= kNone && reduction <= kNormalized);
  static_cast<Rows&>(f) = call.rows;
  f.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  REFUSE_UNLESS(reduction != kNormalized || !f.formula->needs_all_logits());
  Tensor loss = reduction == kNone ? call.made(call.target.sizes()) : call.made({});
  if (reduction == kNone)
    f.value = loss.mutable_data_ptr();
  else
    r.loss = loss.mutable_data_ptr();
  if (reduction == kMean) r.divide_by = Reduction::kTargets;
  if (reduction == kNormalized) r.divide_by = Reduction::kExampleWeights;
  r.mean_gradient = reduction == kMean && f.grad != nullptr;
  call.backend.forward(call, f, r);
  return loss;
}

// reduction: none 0, mean 1, sum 2, normalized 3. formula: for each term its number, coefficient and parameters.
Tensor forward(const Tensor& logits, const Tensor& target, const Numbers& formula, const OptionalTensor& weight,
               const OptionalTensor& sample_weight, int64_t ignore_index, int64_t reduction) {
  const Call call(logits, target, {weight, sample_weight}, ignore_index, Want::kNone);
  return run_forward(call, {}, {}, formula, reduction);
}

// The gradient cannot be written before a divisor is known that depends on all rows' outcomes.
std::tuple<Tensor, Tensor> forward_backward(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                            const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                            int64_t ignore_index, int64_t reduction) {
  REFUSE_UNLESS(reduction != kNormalized);
  const Call call(logits, target, {weight, sample_weight}, ignore_index, Want::kFresh);
  const Tensor loss = run_forward(call, {}, {}, formula, reduction);
  return {loss, call.deliver_gradient()};
}

// A mean without weights, as in most steps. To pass the other arguments takes longer than a small step's arithmetic,
// even as the schema's defaults.
std::tuple<Tensor, Tensor> forward_backward_mean(const Tensor& logits, const Tensor& target, const Numbers& formula) {
  return forward_backward(logits, target, formula, {}, {}, -100, kMean);
}

Tensor forward_backward_out(const Tensor& logits, const Tensor& target, const Numbers& formula,
                            const OptionalTensor& weight, const OptionalTensor& sample_weight, int64_t ignore_index,
                            int64_t reduction, Tensor out) {
  REFUSE_UNLESS(reduction != kNormalized);
  const Call call(logits, target, {weight, sample_weight}, ignore_index, Want::kOut, out);
  const Tensor loss = run_forward(call, {}, {}, formula, reduction);
  call.deliver_gradient();
  return loss;
}

// For a head that makes the logits of a few rows at a time: the gradient of the rows' sum takes the place of the
// logits. Returns each row's value, times its weights, and its example weight.
std::tuple<Tensor, Tensor> forward_backward_(Tensor logits, const Tensor& target, const Numbers& formula,
                                             const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                             int64_t ignore_index) {
  REFUSE_UNLESS(!overlaps_itself(shape_of(logits)));
  const Call call(logits, target, {weight, sample_weight}, ignore_index, Want::kInPlace, logits);
  const Tensor example_weight = call.made(call.target.sizes());
  Forward f;
  f.example_weight = example_weight.mutable_data_ptr();
  const Tensor value = run_forward(call, f, {}, formula, kNone);
  call.deliver_gradient();
  return {value, example_weight};
}

// The loss, with each row's coefficients and the divisor for `backward`.
std::tuple<Tensor, Tensor, Tensor> forward_save(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                                const OptionalTensor& weight, const OptionalTensor& sample_weight,
                                                int64_t ignore_index, int64_t reduction) {
  const Call call(logits, target, {weight, sample_weight}, ignore_index, Want::kNone);
  const Tensor coefficients = call.made({call.rows.N, kCoefficients}), divisor = call.made({});
  Forward f;
  f.coefficients = coefficients.mutable_data_ptr();
  Reduction r;
  r.divisor = divisor.mutable_data_ptr();
  const Tensor loss = run_forward(call, f, r, formula, reduction);
  return {loss, coefficients, divisor};
}

// The gradient step alone. The kernels read a row's coefficients 16 bytes at a time; hooks of saved tensors may have
// moved them anywhere.
Tensor aligned(const Tensor& t) {
  if (reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0) return t;
  Tensor copy = new_like(t);
  ts::copy_(copy, t);
  return copy;
}

Tensor backward(const Tensor& logits, const Tensor& target, const Tensor& coefficients, const Tensor& divisor,
                const Tensor& grad_output, int64_t ignore_index) {
  const Call call(logits, target, {}, ignore_index, Want::kFresh);
  REFUSE_UNLESS(coefficients.scalar_type() == call.compute && coefficients.numel() == kCoefficients * call.rows.N);
  REFUSE_UNLESS(divisor.scalar_type() == call.compute && divisor.numel() == 1);
  REFUSE_UNLESS(grad_output.scalar_type() == call.compute);
  REFUSE_UNLESS(grad_output.numel() == call.rows.N || grad_output.dim() == 0);
  for (const Tensor* t : {&coefficients, &divisor, &grad_output}) REFUSE_UNLESS(same_device(*t, call.logits));
  const Tensor outer = dense(grad_output), saved = aligned(dense(coefficients));
  Backward b;
  static_cast<Rows&>(b) = call.rows;
  b.coefficients = saved.const_data_ptr();
  b.grad_output = outer.const_data_ptr();
  b.grad_output_is_scalar = grad_output.dim() == 0;
  b.divisor = divisor.const_data_ptr();
  call.backend.backward(call, b);
  return call.deliver_gradient();
}

// grad *= grad_output, a scalar; nothing to do for 1. Rows that do not count stay 0 whatever it is.
void scale_(Tensor grad, const Tensor& grad_output, const Tensor& target, const OptionalTensor& weight,
            const OptionalTensor& sample_weight, int64_t ignore_index) {
  REFUSE_UNLESS(grad_output.numel() == 1 && same_device(grad_output, grad));
  REFUSE_UNLESS(grad_output.scalar_type() == ScalarType::Double || grad_output.scalar_type() == ScalarType::Float);
  REFUSE_UNLESS(span(shape_of(grad)) == grad.numel() && !overlaps_itself(shape_of(grad)));
  const Call call(grad, target, {weight, sample_weight}, ignore_index, Want::kInPlace, grad);
  Scale s;
  static_cast<Rows&>(s) = call.rows;
  s.count = grad.numel();
  s.by = grad_output.const_data_ptr();
  s.by_is_double = grad_output.scalar_type() == ScalarType::Double;
  call.backend.scale(call, s);
  call.deliver_gradient();
}

// Statistics and formula without a loss: p_y and the example weight of each row.
std::tuple<Tensor, Tensor> row_stats(const Tensor& logits, const Tensor& target, const Numbers& formula,
                                     int64_t ignore_index) {
  const Call call(logits, target, {}, ignore_index, Want::kNone);
  const Tensor p = call.made(call.target.sizes()), example_weight = call.made(call.target.sizes());
  Forward f;
  static_cast<Rows&>(f) = call.rows;
  f.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  REFUSE_UNLESS(!f.formula->needs_all_logits());
  f.p = p.mutable_data_ptr();
  f.example_weight = example_weight.mutable_data_ptr();
  call.backend.forward(call, f, {});
  return {p, example_weight};
}

// The same with what else is asked for; an empty tensor stands for what is not.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> describe_rows(const Tensor& logits, const Tensor& target,
                                                                         const Numbers& formula, int64_t ignore_index,
                                                                         bool log_p, bool entropy, bool sum_p2,
                                                                         bool is_top) {
  const Call call(logits, target, {}, ignore_index, Want::kNone);
  REFUSE_UNLESS(call.backend.describe != nullptr);
  Describe d;
  static_cast<Rows&>(d) = call.rows;
  d.formula = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  REFUSE_UNLESS(!d.formula->needs_all_logits());
  const auto wanted = [&](bool wish, void*& to, ScalarType dtype) {
    constexpr int64_t kNothing[] = {0};
    const Tensor made = new_tensor(call.logits, wish ? call.target.sizes() : kNothing, dtype);
    if (wish) to = made.mutable_data_ptr();
    return made;
  };
  const std::tuple made{wanted(true, d.p, call.compute),        wanted(true, d.example_weight, call.compute),
                        wanted(log_p, d.log_p, call.compute),   wanted(entropy, d.entropy, call.compute),
                        wanted(sum_p2, d.sum_p2, call.compute), wanted(is_top, d.is_top, ScalarType::Bool)};
  call.backend.describe(call, d);
  return made;
}

}  // namespace

const Backend& backend_of(const Tensor& t) {
  int32_t type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &type));
  REFUSE_UNLESS(type >= 0 && type < kDeviceTypes && backends[type]);
  return *backends[type];
}

bool add_backend(torch::headeronly::DeviceType type, const Backend& backend) {
  backends[static_cast<int>(type)] = &backend;
  return true;
}

void implement_operators(torch::stable::detail::StableLibrary& m) {
  m.impl("forward", TORCH_BOX(&forward));
  m.impl("forward_backward", TORCH_BOX(&forward_backward));
  m.impl("forward_backward_mean", TORCH_BOX(&forward_backward_mean));
  m.impl("forward_backward_out", TORCH_BOX(&forward_backward_out));
  m.impl("forward_backward_", TORCH_BOX(&forward_backward_));
  m.impl("forward_save", TORCH_BOX(&forward_save));
  m.impl("traced_forward_backward", TORCH_BOX(&forward_backward));
  m.impl("traced_forward_save", TORCH_BOX(&forward_save));
  m.impl("backward", TORCH_BOX(&backward));
  m.impl("scale_", TORCH_BOX(&scale_));
  m.impl("row_stats", TORCH_BOX(&row_stats));
  m.impl("describe_rows", TORCH_BOX(&describe_rows));
  implement_binary(m);
  implement_dense(m);
  implement_mixed(m);
}

// The schemas. They are in exported models: what is there stays, and a new argument comes at the end with a default.
STABLE_TORCH_LIBRARY(imae_ext, m) {
#define LOSS_ARGUMENTS                                                                                            \
  "(Tensor logits, Tensor target, float[] formula, Tensor? weight, Tensor? sample_weight, int ignore_index, int " \
  "reduction"
  m.def("forward" LOSS_ARGUMENTS ") -> Tensor");
  // its defaults stay: stored programs leave out what is equal to them
  m.def(
      "forward_backward(Tensor logits, Tensor target, float[] formula, Tensor? weight=None, Tensor? "
      "sample_weight=None, int ignore_index=-100, int reduction=1) -> (Tensor, Tensor)");
  m.def("forward_backward_mean(Tensor logits, Tensor target, float[] formula) -> (Tensor, Tensor)");
  m.def("forward_backward_out" LOSS_ARGUMENTS ", Tensor(a!) out) -> Tensor");
  m.def(
      "forward_backward_(Tensor(a!) logits, Tensor target, float[] formula, Tensor? weight, Tensor? sample_weight, int "
      "ignore_index) -> (Tensor, Tensor)");
  m.def("forward_save" LOSS_ARGUMENTS ") -> (Tensor, Tensor, Tensor)");
  // the same two for torch.compile and export: Python gives these a derivative, which costs an eager call too much
  m.def("traced_forward_backward" LOSS_ARGUMENTS ") -> (Tensor, Tensor)");
  m.def("traced_forward_save" LOSS_ARGUMENTS ") -> (Tensor, Tensor, Tensor)");
#undef LOSS_ARGUMENTS
  m.def(
      "backward(Tensor logits, Tensor target, Tensor coefficients, Tensor divisor, Tensor grad_output, int "
      "ignore_index) "
      "-> Tensor");
  m.def(
      "scale_(Tensor(a!) grad, Tensor grad_output, Tensor target, Tensor? weight, Tensor? sample_weight, int "
      "ignore_index) -> ()");
  m.def("row_stats(Tensor logits, Tensor target, float[] formula, int ignore_index) -> (Tensor, Tensor)");
  m.def(
      "describe_rows(Tensor logits, Tensor target, float[] formula, int ignore_index, bool log_p, bool entropy, bool "
      "sum_p2, bool is_top) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

}  // namespace imae
