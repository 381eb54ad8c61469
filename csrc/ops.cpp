// The operators: schemas, and the CPU implementation. LibTorch stable ABI, no Python.
#include <cmath>

#include "call.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace imae {
namespace {

// A fresh gradient of many megabytes costs more in page faults than in arithmetic: ask for pages of 2 MB.
void ask_for_huge_pages(const Tensor& fresh) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 2 << 20;
  const auto bytes = static_cast<uintptr_t>(fresh.numel()) * fresh.element_size();
  if (bytes < kPage) return;
  const auto address = reinterpret_cast<uintptr_t>(fresh.mutable_data_ptr());
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: nothing to do if it is not granted
#endif
}

template <class F>
void for_rows(const Rows& rows, int64_t groups, F f) {
  constexpr int64_t kGrain = 1 << 14;  // logits: for fewer, a second thread saves little, if it is awake
  const int64_t per_group = std::max<int64_t>(1, rows.N / groups) * rows.C;
  const int64_t grain = std::max<int64_t>(1, kGrain / per_group);
  if (groups <= grain)
    f(0, groups);
  else
    ts::parallel_for(0, groups, grain, f);
}

// The sum of the targets' weights over rows that are not ignored (their number, without weights), in order.
// Refuses a target out of range before any kernel runs.
template <class S>
double sum_of_target_weights(const Rows& rows, const void* weight) {
  const S* w = static_cast<const S*>(weight);
  if (!w)
    if (const int64_t count = cpu_kernels().count_targets(rows); count >= 0) return static_cast<double>(count);
  // one after the other: for their weights, or to find the one that is no class
  double sum = 0;
  for (int64_t i = 0; i < rows.N; ++i) {
    const int64_t y = rows.label(i);
    if (y == rows.ignore_index) continue;
    STD_TORCH_CHECK(y >= 0 && y < rows.C, "imae_ext: expected labels in [0, ", rows.C,
                    ") or ignore_index=", rows.ignore_index, ", got ", y, " at row ", i, " of target");
    if (w) sum += w[y];
  }
  return sum;
}

template <class F>
auto by_precision(ScalarType compute, F f) {
  return compute == ScalarType::Double ? f(double{}) : f(float{});
}

double in_order(const std::vector<double>& sums) {
  double total = 0;
  for (double x : sums) total += x;
  return total;
}

Tensor new_scalar(const Call& call, double value) {
  Tensor t = new_tensor(call.logits, {}, call.compute);
  by_precision(call.compute,
               [&](auto s) { *static_cast<decltype(s)*>(t.mutable_data_ptr()) = static_cast<decltype(s)>(value); });
  return t;
}

struct ForwardResult {
  Tensor loss;
  double divisor;
};

// Runs the forward kernel with whatever outputs f already names, and reduces.
ForwardResult run_forward(const Call& call, Forward& f, const std::optional<Tensor>& class_weight,
                          const std::vector<double>& formula, int64_t reduction) {
  REFUSE_UNLESS(reduction >= kNone && reduction <= kNormalized);
  static_cast<Rows&>(f) = call.rows;
  f.loss = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  REFUSE_UNLESS(f.loss->f64.margin || reduction != kNormalized);
  f.class_weight = class_weight ? class_weight->const_data_ptr() : nullptr;
  const double targets =
      by_precision(call.compute, [&](auto s) { return sum_of_target_weights<decltype(s)>(f, f.class_weight); });
  if (reduction == kMean) f.scale = 1 / targets;
  std::optional<Tensor> values;
  if (reduction == kNone) {
    values = new_tensor(call.logits, call.target.sizes(), call.compute);
    f.value = values->mutable_data_ptr();
  }
  const auto& kernels = cpu_kernels();
  const int64_t groups = kernels.group_count(f);
  std::vector<double> value_sums(reduction == kNone ? 0 : groups), weight_sums(reduction == kNormalized ? groups : 0);
  if (reduction != kNone) f.value_sums = value_sums.data();
  if (reduction == kNormalized) f.weight_sums = weight_sums.data();
  if (groups > 0) for_rows(f, groups, [&](int64_t begin, int64_t end) { kernels.forward(f, begin, end); });
  if (reduction == kNone) return {*values, 1};
  const double divisor = reduction == kMean ? targets : reduction == kNormalized ? in_order(weight_sums) : 1;
  return {new_scalar(call, in_order(value_sums) / divisor), divisor};
}

Tensor forward_cpu(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                   const std::vector<double>& formula, int64_t reduction, int64_t ignore_index) {
  const Call call(logits, target, ignore_index, std::nullopt, false, cpu_kernels().reads_in_place);
  Forward f;
  return run_forward(call, f, class_weight_of(weight, call), formula, reduction).loss;
}

std::tuple<Tensor, Tensor> forward_backward_cpu(const Tensor& logits, const Tensor& target,
                                                const std::optional<Tensor>& weight, const std::vector<double>& formula,
                                                int64_t reduction, int64_t ignore_index) {
  const Call call(logits, target, ignore_index, std::nullopt, true, cpu_kernels().reads_in_place);
  REFUSE_UNLESS(reduction != kNormalized);
  ask_for_huge_pages(*call.grad);
  Forward f;
  return {run_forward(call, f, class_weight_of(weight, call), formula, reduction).loss, call.finished_grad()};
}

Tensor forward_backward_out_cpu(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                                const std::vector<double>& formula, int64_t reduction, int64_t ignore_index,
                                Tensor out) {
  const Call call(logits, target, ignore_index, out, true, cpu_kernels().reads_in_place);
  REFUSE_UNLESS(reduction != kNormalized);
  Forward f;
  const Tensor loss = run_forward(call, f, class_weight_of(weight, call), formula, reduction).loss;
  call.finished_grad();
  return loss;
}

std::tuple<Tensor, Tensor, Tensor> forward_save_cpu(const Tensor& logits, const Tensor& target,
                                                    const std::optional<Tensor>& weight,
                                                    const std::vector<double>& formula, int64_t reduction,
                                                    int64_t ignore_index) {
  const Call call(logits, target, ignore_index, std::nullopt, false, cpu_kernels().reads_in_place);
  const Tensor coefficients = new_tensor(call.logits, {call.rows.N, 4}, call.compute);
  Forward f;
  f.coefficients = coefficients.mutable_data_ptr();
  const ForwardResult result = run_forward(call, f, class_weight_of(weight, call), formula, reduction);
  return {result.loss, coefficients, new_scalar(call, result.divisor)};
}

Tensor backward_cpu(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                    const Tensor& coefficients, const Tensor& divisor, const Tensor& grad_output,
                    int64_t ignore_index) {
  const Call call(logits, target, ignore_index, std::nullopt, true, cpu_kernels().reads_in_place);
  check_backward(call, coefficients, divisor, grad_output);
  REFUSE_UNLESS(cpu_kernels().count_targets(call.rows) >= 0);  // they may have changed since forward looked
  ask_for_huge_pages(*call.grad);
  const auto class_weight = class_weight_of(weight, call);
  const Tensor outer = dense(grad_output), saved = dense(coefficients);
  Backward b;
  static_cast<Rows&>(b) = call.rows;
  b.class_weight = class_weight ? class_weight->const_data_ptr() : nullptr;
  b.coefficients = saved.const_data_ptr();
  b.grad_output = outer.const_data_ptr();
  b.grad_output_is_scalar = grad_output.dim() == 0;
  b.divisor = divisor.const_data_ptr();
  const auto& kernels = cpu_kernels();
  const int64_t groups = kernels.group_count(b);
  if (groups > 0) for_rows(b, groups, [&](int64_t begin, int64_t end) { kernels.backward(b, begin, end); });
  return call.finished_grad();
}

// A factor of inf or NaN is for the rows that count; those left out are 0 and stay so.
void scale_live_rows(const Rows& rows, bool double_weight, double by) {
  const auto& kernels = cpu_kernels();
  ts::parallel_for(0, rows.N, 1 + (1 << 15) / rows.C, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t y = rows.label(i);
      if (double_weight ? rows.left_out<double>(y) : rows.left_out<float>(y)) continue;
      const int64_t at = rows.grad_view.row(i), step = rows.grad_view.class_stride;
      if (step == 1)
        kernels.scale(rows.dtype, rows.grad, at, at + rows.C, by);
      else
        for (int64_t j = 0; j < rows.C; ++j) kernels.scale(rows.dtype, rows.grad, at + j * step, at + j * step + 1, by);
    }
  });
}

// grad *= grad_output, a scalar; nothing to do for 1
void scale_cpu(Tensor grad, const Tensor& grad_output, const Tensor& target, const std::optional<Tensor>& weight,
               int64_t ignore_index) {
  check_scale(grad, grad_output, target);
  const double by = grad_output.scalar_type() == ScalarType::Double
                        ? *static_cast<const double*>(grad_output.const_data_ptr())
                        : *static_cast<const float*>(grad_output.const_data_ptr());
  if (by == 1) return;
  if (!std::isfinite(by)) {
    const Finished finished(grad, target, weight, ignore_index);
    scale_live_rows(finished.rows, finished.compute == ScalarType::Double, by);
    return finished.give_back();
  }
  const auto& kernels = cpu_kernels();
  const DType dtype = *dtype_of(grad);
  void* data = grad.mutable_data_ptr();
  ts::parallel_for(0, grad.numel(), 1 << 15,
                   [&](int64_t begin, int64_t end) { kernels.scale(dtype, data, begin, end, by); });
}

std::tuple<Tensor, Tensor> row_stats_cpu(const Tensor& logits, const Tensor& target, const std::vector<double>& formula,
                                         int64_t ignore_index) {
  const Call call(logits, target, ignore_index, std::nullopt, false, cpu_kernels().reads_in_place);
  Tensor p = new_tensor(call.logits, call.target.sizes(), call.compute), weight = new_like(p);
  Forward f;
  f.p = p.mutable_data_ptr();
  f.weight = weight.mutable_data_ptr();
  run_forward(call, f, std::nullopt, formula, kNormalized);
  return {p, weight};
}

}  // namespace

STABLE_TORCH_LIBRARY(imae_ext, m) {
  // formula: for each term its id, coefficient and parameters. reduction: none 0, mean 1, sum 2, normalized 3.
  m.def(
      "forward(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int ignore_index) -> "
      "Tensor");
  m.def(
      "forward_backward(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int "
      "ignore_index) -> (Tensor, Tensor)");
  m.def(
      "forward_backward_out(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int "
      "ignore_index, Tensor(a!) out) -> Tensor");
  m.def(
      "forward_save(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int ignore_index) -> "
      "(Tensor, Tensor, Tensor)");
  // the same two for torch.compile and export: Python gives these a derivative, which costs an eager call too much
  m.def(
      "traced_forward_backward(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int "
      "ignore_index) -> (Tensor, Tensor)");
  m.def(
      "traced_forward_save(Tensor logits, Tensor target, Tensor? weight, float[] formula, int reduction, int "
      "ignore_index) -> (Tensor, Tensor, Tensor)");
  m.def(
      "backward(Tensor logits, Tensor target, Tensor? weight, Tensor coefficients, Tensor divisor, Tensor grad_output, "
      "int ignore_index) -> Tensor");
  m.def("scale_(Tensor(a!) grad, Tensor grad_output, Tensor target, Tensor? weight, int ignore_index) -> ()");
  m.def("row_stats(Tensor logits, Tensor target, float[] formula, int ignore_index) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(imae_ext, CPU, m) {
  m.impl("forward", TORCH_BOX(&forward_cpu));
  m.impl("forward_backward", TORCH_BOX(&forward_backward_cpu));
  m.impl("forward_backward_out", TORCH_BOX(&forward_backward_out_cpu));
  m.impl("forward_save", TORCH_BOX(&forward_save_cpu));
  m.impl("traced_forward_backward", TORCH_BOX(&forward_backward_cpu));
  m.impl("traced_forward_save", TORCH_BOX(&forward_save_cpu));
  m.impl("backward", TORCH_BOX(&backward_cpu));
  m.impl("scale_", TORCH_BOX(&scale_cpu));
  m.impl("row_stats", TORCH_BOX(&row_stats_cpu));
}

}  // namespace imae
