// Launches on a GPU.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>

#include "entries.h"
#include "run.h"

namespace imae {

class Launcher {
 public:
  explicit Launcher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  // As many blocks as run at once: each takes its share of the rows, and none waits for a second round.
  template <class Kernel>
  int blocks(Kernel kernel, int64_t wanted, int threads, size_t shared) {
    if (shared > kSharedUnasked)
      note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
    if (wanted <= 1) return 1;
    return static_cast<int>(std::min<int64_t>({wanted, resident(kernel, threads, shared), kMaxBlocks}));
  }

  int64_t shared_per_block() {
    int bytes = 0;
    note(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device()));
    return bytes;
  }

  void zero(unsigned* at) { note(cudaMemsetAsync(at, 0, sizeof *at, stream_)); }

  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int blocks, int threads, size_t shared, const Arguments&... arguments) {
    if (error_ != cudaSuccess) return;
    kernel<<<blocks, threads, shared, stream_>>>(arguments...);
    note(cudaGetLastError());
  }

  int error() const { return static_cast<int>(error_); }

 private:
  static constexpr size_t kSharedUnasked = 48 << 10;  // a block gets more only if the kernel's attribute says so

  void note(cudaError_t e) {
    if (error_ == cudaSuccess) error_ = e;
  }

  int device() {
    int device = 0;
    note(cudaGetDevice(&device));
    return device;
  }

  template <class Kernel>
  int resident(Kernel kernel, int threads, size_t shared) {
    int multiprocessors = 1, per_multiprocessor = 1;
    note(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device()));
    note(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, threads, shared));
    return std::max(1, multiprocessors * per_multiprocessor);
  }

  cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
};

template <class T>
constexpr CudaKernels cuda_kernels() {
  return {[](const Forward& f, const Reduction& r, void* stream) {
            Launcher on(stream);
            run_forward<T>(f, r, on);
            return on.error();
          },
          [](const Backward& b, void* stream) {
            Launcher on(stream);
            run_backward<T>(b, on);
            return on.error();
          },
          [](void* grad, int64_t count, const void* by, bool by_is_double, void* stream) {
            Launcher on(stream);
            run_scale<T>(grad, count, by, by_is_double, on);
            return on.error();
          }};
}

}  // namespace imae
