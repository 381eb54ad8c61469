// What the CUDA kernels offer to backend.cpp, and what the files of the element types define. Each is compiled on its
// own, for its kernels take a while.
#pragma once
#include "../binary.h"
#include "../dense.h"
#include "../mixed.h"
#include "workspace.h"

namespace imae {

struct CudaKernels {
  int (*forward)(const Forward&, const Reduction&, Workspace*, void* stream);
  int (*backward)(const Backward&, void* stream);
  int (*scale)(const Scale&, void* stream);
  int (*binary)(const Binary&, const Reduction&, Workspace*, void* stream);
  int (*dense)(const Dense&, const Reduction&, Workspace*, void* stream);
  int (*mixed)(const Mixed&, const Reduction&, Workspace*, void* stream);
  int (*describe)(const Describe&, void* stream);
};

extern const CudaKernels cuda_float64, cuda_float32, cuda_float16, cuda_bfloat16;

// These launch on `stream` (a cudaStream_t) of the current device and return a cudaError_t. The workspace is null where
// nothing is reduced.
bool cuda_reads_in_place(const Rows&);
int cuda_forward(const Forward&, const Reduction&, Workspace*, void* stream);
int cuda_backward(const Backward&, void* stream);
int cuda_scale(const Scale&, void* stream);
int cuda_binary(const Binary&, const Reduction&, Workspace*, void* stream);
int cuda_dense(const Dense&, const Reduction&, Workspace*, void* stream);
int cuda_mixed(const Mixed&, const Reduction&, Workspace*, void* stream);
int cuda_describe(const Describe&, void* stream);
int cuda_device_of(const void* memory, int* device);
const char* cuda_error(int);

}  // namespace imae
