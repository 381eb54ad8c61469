// The operators on a GPU. Everything is queued on the current stream and nothing waits for it, so that a call can be
// captured into a CUDA graph: divisors stay on the device, and a label out of range makes its row NaN.
// With IMAE_EXT_DEBUG=1 each call first copies the labels to the host and refuses such labels.
#include <torch/csrc/stable/accelerator.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "call.h"

// Only libtorch_cuda has it; weak, so that the same binary loads where torch has no CUDA.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace imae {
namespace {

void check(int error) { STD_TORCH_CHECK(error == 0, "imae_ext: CUDA launch failed: ", cuda_error(error)); }

bool debugging() {
  static const char* wish = std::getenv("IMAE_EXT_DEBUG");
  return wish != nullptr && std::string_view(wish) == "1";
}

void check_labels(const Tensor& target, Rows rows) {
  const Tensor on_host = ts::to(target, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  rows.target = on_host.const_data_ptr();
  for (int64_t i = 0; i < rows.N; ++i) {
    const int64_t y = rows.label(i);
    REFUSE_UNLESS(y == rows.ignore_index || (y >= 0 && y < rows.C));
  }
}

// A call on the device of its logits and on that device's current stream.
struct CudaCall {
  ts::accelerator::DeviceGuard guard;
  Call call;
  void* stream = nullptr;

  CudaCall(const Tensor& logits, const Tensor& target, int64_t ignore_index, std::optional<Tensor> out, bool want_grad)
      : guard(logits.get_device_index()),
        call(logits, target, ignore_index, std::move(out), want_grad, cuda_reads_in_place),
        stream(stream_of(logits)) {
    if (debugging()) check_labels(call.target, call.rows);
  }
  static void* stream_of(const Tensor& t) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "imae_ext: this torch has no CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    return stream;
  }
  Tensor made(torch::headeronly::IntHeaderOnlyArrayRef sizes) const {
    return new_tensor(call.logits, sizes, call.compute);
  }
};

// Runs the forward kernel for whatever outputs f and r already name.
void launch_forward(const CudaCall& c, Forward& f, const Reduction& r, const std::optional<Tensor>& weight,
                    const std::vector<double>& formula, bool margin_only) {
  static_cast<Rows&>(f) = c.call.rows;
  f.loss = &prepare(formula.data(), static_cast<int64_t>(formula.size()));
  REFUSE_UNLESS(f.loss->f64.margin || !margin_only);
  const auto class_weight = class_weight_of(weight, c.call);
  if (class_weight) f.class_weight = class_weight->const_data_ptr();
  check(cuda_forward(f, r, c.stream));
}

// The same, with the loss besides.
Tensor run_forward(const CudaCall& c, Forward& f, Reduction& r, const std::optional<Tensor>& weight,
                   const std::vector<double>& formula, int64_t reduction) {
  REFUSE_UNLESS(reduction >= kNone && reduction <= kNormalized);
  Tensor loss = reduction == kNone ? c.made(c.call.target.sizes()) : c.made({});
  // Freed when this returns, but the caching allocator gives it to later work of the same stream only.
  std::optional<Tensor> workspace;
  if (reduction == kNone) {
    f.value = loss.mutable_data_ptr();
  } else {
    workspace = new_tensor(c.call.logits, {int64_t(sizeof(Workspace) / sizeof(double))}, ScalarType::Double);
    r.loss = loss.mutable_data_ptr();
    r.workspace = static_cast<Workspace*>(workspace->mutable_data_ptr());
    r.divide_by = reduction == kMean         ? Reduction::kTargets
                  : reduction == kNormalized ? Reduction::kWeights
                                             : Reduction::kOne;
    r.mean_gradient = reduction == kMean && c.call.rows.grad != nullptr;
  }
  launch_forward(c, f, r, weight, formula, reduction == kNormalized);
  return loss;
}

Tensor forward_cuda(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                    const std::vector<double>& formula, int64_t reduction, int64_t ignore_index) {
  const CudaCall c(logits, target, ignore_index, std::nullopt, false);
  Forward f;
  Reduction r;
  return run_forward(c, f, r, weight, formula, reduction);
}

std::tuple<Tensor, Tensor> forward_backward_cuda(const Tensor& logits, const Tensor& target,
                                                 const std::optional<Tensor>& weight,
                                                 const std::vector<double>& formula, int64_t reduction,
                                                 int64_t ignore_index) {
  const CudaCall c(logits, target, ignore_index, std::nullopt, true);
  REFUSE_UNLESS(reduction != kNormalized);
  Forward f;
  Reduction r;
  return {run_forward(c, f, r, weight, formula, reduction), c.call.finished_grad()};
}

Tensor forward_backward_out_cuda(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                                 const std::vector<double>& formula, int64_t reduction, int64_t ignore_index,
                                 Tensor out) {
  const CudaCall c(logits, target, ignore_index, out, true);
  REFUSE_UNLESS(reduction != kNormalized);
  Forward f;
  Reduction r;
  const Tensor loss = run_forward(c, f, r, weight, formula, reduction);
  c.call.finished_grad();
  return loss;
}

std::tuple<Tensor, Tensor, Tensor> forward_save_cuda(const Tensor& logits, const Tensor& target,
                                                     const std::optional<Tensor>& weight,
                                                     const std::vector<double>& formula, int64_t reduction,
                                                     int64_t ignore_index) {
  const CudaCall c(logits, target, ignore_index, std::nullopt, false);
  const Tensor coefficients = c.made({c.call.rows.N, 4}), divisor = c.made({});
  Forward f;
  f.coefficients = coefficients.mutable_data_ptr();
  Reduction r;
  r.divisor = divisor.mutable_data_ptr();
  const Tensor loss = run_forward(c, f, r, weight, formula, reduction);
  return {loss, coefficients, divisor};
}

// The kernels read a row's coefficients 16 bytes at a time; hooks of saved tensors may have moved them anywhere.
Tensor aligned(const Tensor& t) {
  if (reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0) return t;
  Tensor copy = new_like(t);
  ts::copy_(copy, t);
  return copy;
}

Tensor backward_cuda(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& weight,
                     const Tensor& coefficients, const Tensor& divisor, const Tensor& grad_output,
                     int64_t ignore_index) {
  const CudaCall c(logits, target, ignore_index, std::nullopt, true);
  check_backward(c.call, coefficients, divisor, grad_output);
  const auto class_weight = class_weight_of(weight, c.call);
  const Tensor outer = dense(grad_output), saved = aligned(dense(coefficients));
  Backward b;
  static_cast<Rows&>(b) = c.call.rows;
  if (class_weight) b.class_weight = class_weight->const_data_ptr();
  b.coefficients = saved.const_data_ptr();
  b.grad_output = outer.const_data_ptr();
  b.grad_output_is_scalar = grad_output.dim() == 0;
  b.divisor = divisor.const_data_ptr();
  check(cuda_backward(b, c.stream));
  return c.call.finished_grad();
}

// grad *= grad_output, a scalar that only the device knows; the kernel returns at once if it is 1
void scale_cuda(Tensor grad, const Tensor& grad_output, const Tensor& target, const std::optional<Tensor>& weight,
                int64_t ignore_index) {
  check_scale(grad, grad_output, target);
  const ts::accelerator::DeviceGuard guard(grad.get_device_index());
  const Finished finished(grad, target, weight, ignore_index);
  check(cuda_scale(finished.rows, grad_output.const_data_ptr(), grad_output.scalar_type() == ScalarType::Double,
                   CudaCall::stream_of(grad)));
  finished.give_back();
}

std::tuple<Tensor, Tensor> row_stats_cuda(const Tensor& logits, const Tensor& target,
                                          const std::vector<double>& formula, int64_t ignore_index) {
  const CudaCall c(logits, target, ignore_index, std::nullopt, false);
  const Tensor p = c.made(c.call.target.sizes()), weight = c.made(c.call.target.sizes());
  Forward f;
  f.p = p.mutable_data_ptr();
  f.weight = weight.mutable_data_ptr();
  launch_forward(c, f, Reduction(), std::nullopt, formula, true);
  return {p, weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(imae_ext, CUDA, m) {
  m.impl("forward", TORCH_BOX(&forward_cuda));
  m.impl("forward_backward", TORCH_BOX(&forward_backward_cuda));
  m.impl("forward_backward_out", TORCH_BOX(&forward_backward_out_cuda));
  m.impl("forward_save", TORCH_BOX(&forward_save_cuda));
  m.impl("traced_forward_backward", TORCH_BOX(&forward_backward_cuda));
  m.impl("traced_forward_save", TORCH_BOX(&forward_save_cuda));
  m.impl("backward", TORCH_BOX(&backward_cuda));
  m.impl("scale_", TORCH_BOX(&scale_cuda));
  m.impl("row_stats", TORCH_BOX(&row_stats_cuda));
}

}  // namespace imae
