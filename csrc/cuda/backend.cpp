// The backend of NVIDIA's GPUs. Everything is queued on the current stream and nothing waits for it, so that a call can
// be captured into a CUDA graph: divisors stay on the device, and a label out of range makes its row NaN.
// With IMAE_EXT_DEBUG=1 each call first copies the labels to the host and refuses such labels.
#include <torch/csrc/stable/accelerator.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "../call.h"
#include "entries.h"

// Only libtorch_cuda has it; weak, so that the same binary loads where torch has no CUDA.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace imae {
namespace {

bool debugging() {
  static const char* wish = std::getenv("IMAE_EXT_DEBUG");
  return wish != nullptr && std::string_view(wish) == "1";
}

void check_labels(const Call& call) {
  const Tensor on_host = ts::to(call.target, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  Rows rows = call.rows;
  rows.target = on_host.const_data_ptr();
  for (int64_t i = 0; i < rows.N; ++i) {
    const int64_t y = rows.label(i);
    REFUSE_UNLESS(y == rows.ignore_index || (y >= 0 && y < rows.C));
  }
}

void check(int error) { STD_TORCH_CHECK(error == 0, "imae_ext: CUDA launch failed: ", cuda_error(error)); }

// Launches on a device, on its current stream.
template <class F>
void on_device(int32_t device, F launch) {
  const ts::accelerator::DeviceGuard guard(device);
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "imae_ext: this torch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  check(launch(stream));
}
template <class F>
void on_device_of(const Tensor& logits, F launch) {
  on_device(logits.get_device_index(), launch);
}

template <class F>
void on_device_of(const Call& call, F launch) {
  if (debugging()) check_labels(call);
  on_device_of(call.logits, launch);
}

// Freed when the call returns, but the caching allocator gives it to later work of the same stream only.
std::optional<Tensor> workspace_on(int32_t device, bool wanted) {
  if (!wanted) return std::nullopt;
  constexpr int64_t kSize = sizeof(Workspace) / sizeof(double), kStride = 1;
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(1, &kSize, &kStride, aoti_torch_dtype_float64(),
                                                  aoti_torch_device_type_cuda(), device, &made));
  return Tensor(made);
}
std::optional<Tensor> workspace_for(const Tensor& logits, bool wanted) {
  return workspace_on(logits.get_device_index(), wanted);
}
Workspace* memory_of(const std::optional<Tensor>& workspace) {
  return workspace ? static_cast<Workspace*>(workspace->mutable_data_ptr()) : nullptr;
}

void forward(const Call& call, const Forward& f, const Reduction& r) {
  on_device_of(call, [&](void* stream) {
    const auto workspace = workspace_for(call.logits, r.loss || r.mean_gradient);
    return cuda_forward(f, r, memory_of(workspace), stream);
  });
}

void backward(const Call& call, const Backward& b) {
  on_device_of(call, [&](void* stream) { return cuda_backward(b, stream); });
}

void scale(const Call& call, const Scale& s) {
  on_device_of(call, [&](void* stream) { return cuda_scale(s, stream); });
}

void binary(const Tensor& logits, const Binary& b, const Reduction& r) {
  on_device_of(logits, [&](void* stream) {
    const auto workspace = workspace_for(logits, r.divisor != nullptr);
    return cuda_binary(b, r, memory_of(workspace), stream);
  });
}

// They get no tensor: where the results lie, the inputs lie, too. K: Dense or Mixed.
template <class K>
void of_rows(const K& k, const Reduction& r, int (*run)(const K&, const Reduction&, Workspace*, void*)) {
  int device = 0;
  if (!r.divisor && k.N == 0) return;
  check(cuda_device_of(r.divisor ? r.divisor : k.grad, &device));
  on_device(device, [&](void* stream) {
    const auto workspace = workspace_on(device, r.divisor != nullptr);
    return run(k, r, memory_of(workspace), stream);
  });
}
void dense(const Dense& d, const Reduction& r) { of_rows(d, r, &cuda_dense); }
void mixed(const Mixed& m, const Reduction& r) { of_rows(m, r, &cuda_mixed); }

void describe(const Call& call, const Describe& d) {
  on_device_of(call, [&](void* stream) { return cuda_describe(d, stream); });
}

constexpr Backend kBackend = {
    &cuda_reads_in_place, nullptr, &forward, &backward, &scale, &binary, &dense, &mixed, false, &describe};
[[maybe_unused]] const bool added = add_backend(torch::headeronly::DeviceType::CUDA, kBackend);

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(imae_ext, CUDA, m) { implement_operators(m); }

}  // namespace imae
