// The CPU kernels for every processor, without torch: reads calls from stdin and writes what they give to stdout, so
// that an emulator of another processor can run them (test_arm.py, which says the order of the fields).
#include <cstdio>
#include <cstring>
#include <vector>

#include "cpu/instruction_sets.h"
#include "geometry.h"

namespace imae {
extern const CpuKernels baseline_kernels;
}

namespace {

using Bytes = std::vector<unsigned char>;

bool get(void* to, size_t bytes) { return std::fread(to, 1, bytes, stdin) == bytes; }
Bytes bytes(int64_t count) {
  Bytes read(static_cast<size_t>(count));
  if (!get(read.data(), read.size())) std::exit(2);
  return read;
}
std::vector<int64_t> integers(int64_t count) {
  std::vector<int64_t> read(static_cast<size_t>(count));
  if (!get(read.data(), 8 * read.size())) std::exit(2);
  return read;
}
void put(const Bytes& from) { std::fwrite(from.data(), 1, from.size(), stdout); }

enum Reduction : int64_t { kNone, kMean, kSum, kNormalized };

template <class S>
void store(Bytes& to, double x) {
  const S s = static_cast<S>(x);
  std::memcpy(to.data(), &s, sizeof s);
}

// The sum of the targets' weights, as the CPU backend has it.
template <class S>
double count_targets(const imae::Rows& rows) {
  double sum = 0;
  for (int64_t i = 0; i < rows.N; ++i)
    if (const int64_t y = rows.label(i); y != rows.ignore_index)
      sum += rows.class_weight ? static_cast<const S*>(rows.class_weight)[y] : S(1);
  return sum;
}

template <class S>
void run(const imae::Rows& rows, const Bytes& formula, int64_t reduction, const Bytes& upstream, Bytes& loss) {
  const imae::CpuKernels& kernels = imae::baseline_kernels;
  imae::GroupedForward f;
  static_cast<imae::Rows&>(f) = rows;
  f.formula = &imae::prepare(reinterpret_cast<const double*>(formula.data()), static_cast<int64_t>(formula.size() / 8));
  const bool at_once = reduction == kMean || reduction == kSum;
  const double targets = count_targets<S>(f);
  if (reduction == kMean) f.scale = 1 / targets;
  Bytes saved(at_once ? 0 : imae::kCoefficients * f.N * sizeof(S)), divisor(sizeof(S));
  if (!at_once) f.grad = nullptr, f.coefficients = saved.data();
  if (reduction == kNone) f.value = loss.data();
  const int64_t groups = kernels.group_count(f);
  std::vector<double> values(groups), weights(groups);
  if (reduction != kNone) f.value_sums = values.data();
  if (reduction == kNormalized) f.example_weight_sums = weights.data();
  kernels.forward(f, 0, groups);
  double value = 0, weight = 0;
  for (int64_t g = 0; g < groups; ++g) value += values[g], weight += weights[g];
  const double by = reduction == kMean ? targets : reduction == kNormalized ? weight : 1;
  if (reduction != kNone) store<S>(loss, value / by);
  if (at_once) return;
  store<S>(divisor, by);
  imae::Backward b;
  static_cast<imae::Rows&>(b) = rows;
  b.coefficients = saved.data();
  b.grad_output = upstream.data();
  b.grad_output_is_scalar = reduction != kNone;
  b.divisor = divisor.data();
  kernels.backward(b, 0, kernels.group_count(b));
}

bool next() {
  int64_t head[9];  // dtype, dimensions, elements stored and before the first, int32 labels, weights, terms, reduction
  if (!get(head, sizeof head)) return false;
  const auto [dtype, dim, stored, offset, narrow, weighted, terms, reduction, grad_stored] = head;
  const std::vector<int64_t> sizes = integers(dim), strides = integers(dim), grad_strides = integers(dim);
  const imae::Shape shape{sizes.data(), strides.data(), dim};
  const int64_t size = dtype == 0 ? 8 : dtype == 1 ? 4 : 2, wide = dtype == 0 ? 8 : 4;
  const Bytes logits = bytes(stored * size), target = bytes(shape.N() * (narrow ? 4 : 8));
  const Bytes weight = bytes(weighted ? shape.C() * wide : 0), formula = bytes(terms * 8);
  const Bytes upstream = bytes((reduction == kNone ? shape.N() : 1) * wide);
  Bytes grad(static_cast<size_t>(grad_stored * size), 0xff), loss(upstream.size(), 0xff);  // NaN
  imae::Rows rows;
  rows.dtype = static_cast<imae::DType>(dtype);
  rows.N = shape.N(), rows.C = shape.C();
  rows.logits = logits.data() + offset * size;
  rows.target = target.data();
  rows.target_is_int32 = narrow != 0;
  rows.class_weight = weighted ? weight.data() : nullptr;
  rows.grad = grad.data();
  const int64_t in_place = make_views(shape, grad_strides.data(), rows.logits_view, rows.grad_view) &&
                           imae::baseline_kernels.reads_in_place(rows);
  std::fwrite(&in_place, 8, 1, stdout);
  if (in_place && dtype == 0) run<double>(rows, formula, reduction, upstream, loss);
  if (in_place && dtype != 0) run<float>(rows, formula, reduction, upstream, loss);
  put(loss);
  put(grad);
  return true;
}

}  // namespace

int main() {
  while (next()) {
  }
}
