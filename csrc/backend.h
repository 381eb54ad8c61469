// What a kind of device provides. ops.cpp is written once over this; a further backend is one more file like
// cpu/backend.cpp, which also registers the operators for its dispatch key.
#pragma once
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/DeviceType.h>

#include <cstdint>

#include "binary.h"
#include "dense.h"
#include "mixed.h"
#include "rows.h"

namespace imae {

struct Call;  // call.h

struct Backend {
  // Whether the kernels can walk over such rows; if not, the caller brings them to class stride 1.
  bool (*reads_in_place)(const Rows&);
  // What to do with fresh memory for a gradient before a kernel writes to it; null: nothing.
  void (*make_ready)(void* fresh, int64_t bytes);
  // These do their work or queue it. A label that is no class is refused before any kernel runs if the host can see
  // it; where it cannot, the value and the gradient of such a row are NaN.
  void (*forward)(const Call&, const Forward&, const Reduction&);
  void (*backward)(const Call&, const Backward&);
  void (*scale)(const Call&, const Scale&);
  // Writes what the Binary and the Reduction name, like forward: values and divisor, or the gradient.
  void (*binary)(const torch::stable::Tensor& logits, const Binary&, const Reduction&);
  // The same of targets with an amount of every class; null: Python goes to the reference.
  void (*dense)(const Dense&, const Reduction&);
  // And of two labels; null: Python sweeps twice.
  void (*mixed)(const Mixed&, const Reduction&);
  // Whether binary, dense and mixed write values and gradient in one call, divided by what a mean is divided by.
  bool in_one_pass = false;
  // Statistics of rows; null: Python goes to the reference.
  void (*describe)(const Call&, const Describe&) = nullptr;
};

// The backend of a tensor's device; refuses a device for which this build has none.
const Backend& backend_of(const torch::stable::Tensor&);
// Called once for each kind of device, while the library is loaded.
bool add_backend(torch::headeronly::DeviceType, const Backend&);
// The operators under a dispatch key: STABLE_TORCH_LIBRARY_IMPL(imae_ext, CPU, m) { implement_operators(m); }
void implement_operators(torch::stable::detail::StableLibrary&);
void implement_binary(torch::stable::detail::StableLibrary&);  // parts of those, in binary_ops.cpp
void implement_dense(torch::stable::detail::StableLibrary&);   // dense_ops.cpp
void implement_mixed(torch::stable::detail::StableLibrary&);   // and mixed_ops.cpp

}  // namespace imae
