// Launches on a GPU.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "entries.h"
#include "run.h"

namespace imae {

class Launcher {
 public:
  explicit Launcher(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {}

  // Asked once by each thread, and again after it has turned to another device.
  const Card& card() {
    thread_local int known = -1;
    thread_local Card card;
    if (const int now = device(); now != known) {
      card = {attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), attribute(cudaDevAttrClusterLaunch) != 0};
      if (error_ == cudaSuccess) known = now;
    }
    return card;
  }

  // As many blocks as run at once: each takes its share of the rows, and none waits for a second round.
  template <class Kernel>
  int blocks(Kernel kernel, int64_t wanted, const BlockShape& shape) {
    const int64_t most = std::min(resident(kernel, shape), kMaxBlocks / shape.cluster);
    return static_cast<int>(std::min(std::max<int64_t>(wanted, 1), most)) * shape.cluster;
  }

  void zero(unsigned* at) { note(cudaMemsetAsync(at, 0, sizeof *at, stream_)); }

  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int blocks, const BlockShape& shape, const Arguments&... arguments) {
    if (error_ != cudaSuccess) return;
    cudaLaunchAttribute cluster;
    const cudaLaunchConfig_t config = configured(blocks, shape, cluster);
    note(cudaLaunchKernelEx(&config, kernel, arguments...));
  }

  // Whether the card answers at all: a driver that is too old for this runtime does not.
  bool ready() {
    card();
    return error_ == cudaSuccess;
  }
  int error() const { return static_cast<int>(error_); }

 private:
  // A block gets more than 48 KB, its static variables included, only if the kernel's attribute says so.
  static constexpr size_t kSharedUnasked = (48 << 10) - kStaticShared;

  void note(cudaError_t e) {
    if (error_ == cudaSuccess) error_ = e;
  }

  int device() {
    int device = 0;
    note(cudaGetDevice(&device));
    return device;
  }

  int attribute(cudaDeviceAttr wanted) {
    int value = 0;
    note(cudaDeviceGetAttribute(&value, wanted, device()));
    return value;
  }

  // The blocks, or clusters, that run at once. Asked once by each thread for each shape: the driver takes longer to
  // answer than to launch.
  template <class Kernel>
  int resident(Kernel kernel, const BlockShape& shape) {
    thread_local std::map<std::tuple<int, const void*, int, size_t, int>, int> known;
    const std::tuple key(device(), reinterpret_cast<const void*>(kernel), shape.threads, shape.shared, shape.cluster);
    if (const auto found = known.find(key); found != known.end()) return found->second;
    if (shape.shared > 0) prefer_shared(kernel);
    if (shape.shared > kSharedUnasked) ask_for_shared(kernel);
    const int count = shape.cluster > 1 ? resident_clusters(kernel, shape) : resident_blocks(kernel, shape);
    if (error_ == cudaSuccess) known[key] = count;
    return count;
  }

  // As much of an SM's memory as can be is shared, not cache: how many blocks run at once depends on it, and what is
  // copied to shared memory passes the L1 cache by.
  template <class Kernel>
  void prefer_shared(Kernel kernel) {
    note(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  }

  // For all that the card has: were it for what this call takes, another thread's smaller call could lower the limit
  // before the launch.
  template <class Kernel>
  void ask_for_shared(Kernel kernel) {
    cudaFuncAttributes compiled{};
    note(cudaFuncGetAttributes(&compiled, kernel));
    const auto most = static_cast<int>(card().shared_per_block) - static_cast<int>(compiled.sharedSizeBytes);
    if (error_ == cudaSuccess) note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  }

  template <class Kernel>
  int resident_blocks(Kernel kernel, const BlockShape& shape) {
    int per_multiprocessor = 1;
    note(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_multiprocessor, kernel, shape.threads, shape.shared));
    return std::max(1, attribute(cudaDevAttrMultiProcessorCount) * per_multiprocessor);
  }

  // None on a part of a card that is too small for the cluster; nor of a kernel for older cards that the driver has
  // compiled for this one: it would trap.
  template <class Kernel>
  int resident_clusters(Kernel kernel, const BlockShape& shape) {
    cudaFuncAttributes compiled;
    note(cudaFuncGetAttributes(&compiled, kernel));
    if (error_ != cudaSuccess || compiled.ptxVersion < 90) return 0;
    cudaLaunchAttribute cluster;
    const cudaLaunchConfig_t config = configured(shape.cluster, shape, cluster);
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, kernel, &config) == cudaSuccess) return clusters;
    cudaGetLastError();  // no error of the call's
    return 0;
  }

  // `cluster` must live as long as what is returned.
  cudaLaunchConfig_t configured(int blocks, const BlockShape& shape, cudaLaunchAttribute& cluster) const {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = blocks;
    config.blockDim = shape.threads;
    config.dynamicSmemBytes = shape.shared;
    config.stream = stream_;
    config.attrs = &cluster;
    config.numAttrs = shape.cluster > 1 ? 1 : 0;
    return config;
  }

  cudaStream_t stream_;
  cudaError_t error_ = cudaSuccess;
};

template <class T>
constexpr CudaKernels cuda_kernels() {
  return {[](const Forward& f, const Reduction& r, Workspace* workspace, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_forward<T>(f, r, workspace, on);
            return on.error();
          },
          [](const Backward& b, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_backward<T>(b, on);
            return on.error();
          },
          [](const Scale& s, void* stream) {
            Launcher on(stream);
            run_scale<T>(s, on);
            return on.error();
          },
          [](const Binary& b, const Reduction& r, Workspace* workspace, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_binary<T>(b, r, workspace, on);
            return on.error();
          },
          [](const Dense& d, const Reduction& r, Workspace* workspace, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_dense<T>(d, r, workspace, on);
            return on.error();
          },
          [](const Mixed& m, const Reduction& r, Workspace* workspace, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_mixed<T>(m, r, workspace, on);
            return on.error();
          },
          [](const Describe& d, void* stream) {
            Launcher on(stream);
            if (on.ready()) run_describe<T>(d, on);
            return on.error();
          }};
}

}  // namespace imae
