// Calls of the CUDA kernels (kernel_calls.h), run in the emulator.
#pragma once
#include "simt.h"  // before the kernels

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "cuda/run.h"
#include "geometry.h"
#include "kernel_calls.h"

// To the emulator, thread_local memory is __shared__ memory: the cache in prepare.cpp must be another kind.
#include <array>
#include <numbers>
#include <optional>
#include <string>
#include <vector>
#define thread_local static
#include "prepare.cpp"
#undef thread_local

namespace imae_simt {

class Launcher {
 public:
  explicit Launcher(const Machine& m) : machine_(m) {}
  imae::Card card() const { return {machine_.shared_per_block, machine_.most_cluster > 0}; }
  template <class Kernel>
  int blocks(Kernel, int64_t wanted, const imae::BlockShape& shape) const {
    if (static_cast<int64_t>(shape.shared) > machine_.shared_per_block)
      throw std::runtime_error("too much shared memory");
    if (shape.cluster > 1 && shape.cluster > machine_.most_cluster) return 0;
    return static_cast<int>(std::clamp<int64_t>(wanted, 1, machine_.most_blocks)) * shape.cluster;
  }
  void zero(unsigned* at) { *at = 0; }
  template <class Kernel, class... Arguments>
  void launch(Kernel kernel, int blocks, const imae::BlockShape& shape, const Arguments&... arguments) {
    const simt::Config config{.grid = static_cast<unsigned>(blocks),
                              .block = static_cast<unsigned>(shape.threads),
                              .dynamic_shared = shape.shared,
                              .seed = static_cast<unsigned>(machine_.seed),
                              .resident_blocks = static_cast<unsigned>(machine_.resident_blocks),
                              .cluster = static_cast<unsigned>(shape.cluster)};
    simt::launch(config, kernel, arguments...);
  }

 private:
  Machine machine_;
};

inline bool fill(const RowsCall& call, imae::Rows& rows) {
  const imae::Shape shape{call.sizes, call.logits_strides, call.dim};
  rows.dtype = static_cast<imae::DType>(call.dtype);
  rows.N = shape.N();
  rows.C = shape.C();
  rows.logits = call.logits;
  rows.target = call.target;
  rows.target_is_int32 = call.target_is_int32 != 0;
  rows.ignore_index = call.ignore_index;
  rows.class_weight = call.class_weight;
  rows.sample_weight = call.sample_weight;
  rows.grad = call.grad;
  return imae::make_views(shape, call.grad_strides, rows.logits_view, rows.grad_view);
}

template <class F>
void by_type(int64_t dtype, F f) {
  switch (static_cast<imae::DType>(dtype)) {
#ifndef IMAE_SIMT_FEW_TYPES  // compiles in half the time
    case imae::DType::kFloat64: return f(double{});
    case imae::DType::kFloat16: return f(__half{});
#endif
    case imae::DType::kBFloat16: return f(__nv_bfloat16{});
    default: return f(float{});
  }
}

inline void forward(const ForwardCall& call) {
  imae::Forward f;
  if (!fill(call.rows, f)) throw std::runtime_error("not read in place");
  f.formula = &imae::prepare(call.formula, call.formula_count);
  f.value = call.value;
  f.coefficients = call.coefficients;
  f.p = call.p;
  f.example_weight = call.example_weight;
  imae::Reduction r;
  r.divide_by = static_cast<imae::Reduction::Divisor>(call.divide_by);
  r.mean_gradient = call.mean_gradient != 0;
  r.loss = call.loss;
  r.divisor = call.divisor;
  const auto workspace = std::make_unique<imae::Workspace>();
  std::memset(static_cast<void*>(workspace.get()), simt::kPoison, sizeof *workspace);
  Launcher on(call.rows.machine);
  by_type(call.rows.dtype, [&](auto t) { imae::run_forward<decltype(t)>(f, r, workspace.get(), on); });
}

inline void describe(const DescribeCall& call) {
  imae::Describe d;
  if (!fill(call.rows, d)) throw std::runtime_error("not read in place");
  d.formula = &imae::prepare(call.formula, call.formula_count);
  d.p = call.p;
  d.example_weight = call.example_weight;
  d.log_p = call.log_p;
  d.entropy = call.entropy;
  d.sum_p2 = call.sum_p2;
  d.is_top = call.is_top;
  Launcher on(call.rows.machine);
  by_type(call.rows.dtype, [&](auto t) { imae::run_describe<decltype(t)>(d, on); });
}

inline void backward(const BackwardCall& call) {
  imae::Backward b;
  if (!fill(call.rows, b)) throw std::runtime_error("not read in place");
  b.coefficients = call.coefficients;
  b.grad_output = call.grad_output;
  b.grad_output_is_scalar = call.grad_output_is_scalar != 0;
  b.divisor = call.divisor;
  Launcher on(call.rows.machine);
  by_type(call.rows.dtype, [&](auto t) { imae::run_backward<decltype(t)>(b, on); });
}

inline void scale(const ScaleCall& call) {
  imae::Scale s;
  if (!fill(call.rows, s)) throw std::runtime_error("not read in place");
  s.count = call.count;
  s.by = call.by;
  s.by_is_double = call.by_is_double != 0;
  Launcher on(call.rows.machine);
  by_type(call.rows.dtype, [&](auto t) { imae::run_scale<decltype(t)>(s, on); });
}

// Runs the kernel of a call, f, with its element type, its reduction and a workspace of noise.
template <class F>
void run(const AmountsCall& call, F f) {
  imae::Reduction r;
  r.divide_by = static_cast<imae::Reduction::Divisor>(call.divide_by);
  r.loss = call.loss;
  r.divisor = call.divisor;
  const auto workspace = std::make_unique<imae::Workspace>();
  std::memset(static_cast<void*>(workspace.get()), simt::kPoison, sizeof *workspace);
  Launcher on(call.machine);
  by_type(call.dtype, [&](auto t) { f(t, r, workspace.get(), on); });
}

template <class Amounts>
void fill(const AmountsCall& call, Amounts& amounts) {
  amounts.dtype = static_cast<imae::DType>(call.dtype);
  amounts.logits = call.logits;
  amounts.formula = &imae::prepare(call.formula, call.formula_count);
  amounts.value = call.value;
  amounts.grad = call.grad;
  amounts.grad_output = call.grad_output;
  amounts.grad_output_is_scalar = call.grad_output_is_scalar != 0;
  amounts.divisor = call.divide_gradient;
}

// What the calls of dense and two-label targets have in common.
template <class Call, class Rows>
void fill_rows(const Call& call, Rows& rows) {
  fill(call, rows);
  rows.N = call.N;
  rows.C = call.C;
  rows.target = call.target;
  rows.class_weight = call.class_weight;
  rows.sample_weight = call.sample_weight;
}

inline void dense(const DenseCall& call) {
  imae::Dense d;
  fill_rows(call, d);
  d.smoothing = call.smoothing;
  run(call,
      [&](auto t, const auto& r, auto* workspace, auto& on) { imae::run_dense<decltype(t)>(d, r, workspace, on); });
}

inline void mixed(const MixedCall& call) {
  imae::Mixed m;
  fill_rows(call, m);
  m.other = call.other;
  m.ignore_index = call.ignore_index;
  m.lam = call.lam;
  m.other_lam = call.other_lam;
  m.lam_is_scalar = call.lam_is_scalar != 0;
  m.other_lam_is_scalar = call.other_lam_is_scalar != 0;
  run(call,
      [&](auto t, const auto& r, auto* workspace, auto& on) { imae::run_mixed<decltype(t)>(m, r, workspace, on); });
}

inline void binary(const BinaryCall& call) {
  imae::Binary b;
  fill(call, b);
  b.count = call.count;
  b.target = call.target;
  b.target_type = static_cast<imae::AmountType>(call.target_type);
  b.has_ignored = call.has_ignored != 0;
  b.ignore_index = call.ignore_index;
  b.weight = {call.weight, call.repeat[0], call.period[0]};
  b.pos_weight = {call.pos_weight, call.repeat[1], call.period[1]};
  b.sample_weight = {call.sample_weight, call.repeat[2], call.period[2]};
  run(call,
      [&](auto t, const auto& r, auto* workspace, auto& on) { imae::run_binary<decltype(t)>(b, r, workspace, on); });
}

}  // namespace imae_simt
