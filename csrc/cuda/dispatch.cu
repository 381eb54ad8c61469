// By element type.
#include <cuda_runtime.h>

#include "entries.h"
#include "tiers.h"

namespace imae {
namespace {
const CudaKernels& kernels_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return cuda_float64;
    case DType::kFloat16: return cuda_float16;
    case DType::kBFloat16: return cuda_bfloat16;
    default: return cuda_float32;
  }
}
}  // namespace

bool cuda_reads_in_place(const Rows& rows) { return reads_in_place(rows); }

int cuda_forward(const Forward& f, const Reduction& r, Workspace* workspace, void* stream) {
  return kernels_of(f.dtype).forward(f, r, workspace, stream);
}

int cuda_backward(const Backward& b, void* stream) { return kernels_of(b.dtype).backward(b, stream); }

int cuda_scale(const Scale& s, void* stream) { return kernels_of(s.dtype).scale(s, stream); }

int cuda_binary(const Binary& b, const Reduction& r, Workspace* workspace, void* stream) {
  return kernels_of(b.dtype).binary(b, r, workspace, stream);
}

int cuda_dense(const Dense& d, const Reduction& r, Workspace* workspace, void* stream) {
  return kernels_of(d.dtype).dense(d, r, workspace, stream);
}

int cuda_mixed(const Mixed& m, const Reduction& r, Workspace* workspace, void* stream) {
  return kernels_of(m.dtype).mixed(m, r, workspace, stream);
}

int cuda_describe(const Describe& d, void* stream) { return kernels_of(d.dtype).describe(d, stream); }

int cuda_device_of(const void* memory, int* device) {
  cudaPointerAttributes found{};
  const cudaError_t error = cudaPointerGetAttributes(&found, memory);
  *device = found.device;
  return error;
}

const char* cuda_error(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace imae
