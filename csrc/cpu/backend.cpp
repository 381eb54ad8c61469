// The CPU's backend: divides the rows among torch's threads, and adds up what they find in a fixed order.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "../call.h"
#include "instruction_sets.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace imae {
namespace {

// A fresh gradient of many megabytes costs more in page faults than in arithmetic: ask for pages of 2 MB.
void ask_for_huge_pages(void* fresh, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 2 << 20;
  if (bytes < static_cast<int64_t>(kPage)) return;
  const auto address = reinterpret_cast<uintptr_t>(fresh);
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage, end = (address + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: nothing to do if it is not granted
#endif
}

template <class F>
void for_groups(const Rows& rows, F f) {
  const int64_t groups = cpu_kernels().group_count(rows);
  if (groups == 0) return;
  constexpr int64_t kGrain = 1 << 14;  // logits: for fewer, a second thread saves little, if it is awake
  const int64_t per_group = std::max<int64_t>(1, rows.N / groups) * rows.C;
  const int64_t grain = std::max<int64_t>(1, kGrain / per_group);
  if (groups <= grain)
    f(0, groups);
  else
    ts::parallel_for(0, groups, grain, f);
}

// The sum of the targets' weights over the rows that count (their number, without weights), in order.
// Refuses a label that is no class before any kernel runs.
template <class S>
double sum_of_target_weights(const Rows& rows) {
  const bool weighed = rows.class_weight || rows.sample_weight;
  if (const int64_t count = cpu_kernels().count_targets(rows); count >= 0 && !weighed)
    return static_cast<double>(count);
  // one after the other: for their weights, or to find the one that is no class
  const S *of_class = static_cast<const S*>(rows.class_weight), *of_row = static_cast<const S*>(rows.sample_weight);
  double sum = 0;
  for (int64_t i = 0; i < rows.N; ++i) {
    const int64_t y = rows.label(i);
    if (y == rows.ignore_index) continue;
    if (y < 0 || y >= rows.C)  // what compiled code shows as it is
      throw std::runtime_error("imae_ext: expected labels in [0, " + std::to_string(rows.C) +
                               ") or ignore_index=" + std::to_string(rows.ignore_index) + ", got " + std::to_string(y) +
                               " at row " + std::to_string(i) + " of target");
    sum += double(of_class ? of_class[y] : S(1)) * (of_row ? of_row[i] : S(1));
  }
  return sum;
}

template <class F>
auto by_precision(DType dtype, F f) {
  return dtype == DType::kFloat64 ? f(double{}) : f(float{});
}

void put(void* to, DType dtype, double value) {
  if (!to) return;
  by_precision(dtype, [&](auto s) { *static_cast<decltype(s)*>(to) = static_cast<decltype(s)>(value); });
}

double in_order(const std::vector<double>& sums) {
  double total = 0;
  for (const double x : sums) total += x;
  return total;
}

void forward(const Call&, const Forward& call, const Reduction& r) {
  GroupedForward f;
  static_cast<Forward&>(f) = call;
  const double targets = by_precision(f.dtype, [&](auto s) { return sum_of_target_weights<decltype(s)>(f); });
  if (r.mean_gradient) f.scale = 1 / targets;
  const int64_t groups = cpu_kernels().group_count(f);
  const bool by_weights = r.divide_by == Reduction::kExampleWeights;
  std::vector<double> value_sums(r.loss ? groups : 0), example_weight_sums(by_weights ? groups : 0);
  if (r.loss) f.value_sums = value_sums.data();
  if (by_weights) f.example_weight_sums = example_weight_sums.data();
  for_groups(f, [&](int64_t begin, int64_t end) { cpu_kernels().forward(f, begin, end); });
  const double divisor = r.divide_by == Reduction::kTargets ? targets : by_weights ? in_order(example_weight_sums) : 1;
  put(r.loss, f.dtype, in_order(value_sums) / divisor);
  put(r.divisor, f.dtype, divisor);
}

void describe(const Call&, const Describe& d) {
  by_precision(d.dtype, [&](auto s) { return sum_of_target_weights<decltype(s)>(d); });  // refuses what is no class
  for_groups(d, [&](int64_t begin, int64_t end) { cpu_kernels().describe(d, begin, end); });
}

void backward(const Call&, const Backward& b) {
  REFUSE_UNLESS(cpu_kernels().count_targets(b) >= 0);  // they may have changed since forward looked
  for_groups(b, [&](int64_t begin, int64_t end) { cpu_kernels().backward(b, begin, end); });
}

void scale(const Call&, const Scale& s) {
  const double by = s.by_is_double ? *static_cast<const double*>(s.by) : *static_cast<const float*>(s.by);
  if (by == 1) return;
  constexpr int64_t kGrain = 1 << 15;  // elements
  if (std::isfinite(by)) {
    ts::parallel_for(0, s.count, kGrain,
                     [&](int64_t begin, int64_t end) { cpu_kernels().scale(s.dtype, s.grad, begin, end, by); });
  } else {
    ts::parallel_for(0, s.N, std::max<int64_t>(1, kGrain / s.C),
                     [&](int64_t begin, int64_t end) { cpu_kernels().scale_rows(s, begin, end, by); });
  }
}

// From the sums of the parts to the loss and its divisor.
void finish(const std::vector<BinarySums>& sums, DType dtype, const Reduction& r) {
  BinarySums all;
  for (const BinarySums& s : sums)
    all = {all.value + s.value, all.example_weight + s.example_weight, all.targets + s.targets, all.wrong || s.wrong};
  STD_TORCH_CHECK(!all.wrong, "imae_ext: expected targets from 0 to 1 or ignore_index");
  const double divisor = r.divide_by == Reduction::kTargets          ? all.targets
                         : r.divide_by == Reduction::kExampleWeights ? all.example_weight
                                                                     : 1;
  put(r.loss, dtype, all.value / divisor);
  put(r.divisor, dtype, divisor);
}

// A number of the type of computation, for the kernels to divide a gradient by.
struct Divisor {
  double f64;
  float f32;
  explicit Divisor(double x) : f64(x), f32(static_cast<float>(x)) {}
  const void* of(DType dtype) const { return dtype == DType::kFloat64 ? static_cast<const void*>(&f64) : &f32; }
};

void binary(const Tensor&, const Binary& call, const Reduction& r) {
  GroupedBinary b;
  static_cast<Binary&>(b) = call;
  std::vector<BinarySums> sums((b.count + kBinaryGroup - 1) / kBinaryGroup);
  b.sums = sums.data();
  b.wants_example_weights = r.divide_by == Reduction::kExampleWeights;
  constexpr int64_t kGrain = 2;  // groups
  const auto for_groups = [&](auto kernel) {
    ts::parallel_for(0, static_cast<int64_t>(sums.size()), kGrain,
                     [&](int64_t begin, int64_t end) { kernel(b, begin, end); });
  };
  double targets = static_cast<double>(b.count);
  if (r.mean_gradient && (b.has_ignored || b.sample_weight.data)) {
    for_groups(cpu_kernels().count_amounts);
    targets = 0;
    for (const BinarySums& s : sums) targets += s.targets;
  }
  const Divisor divisor(r.mean_gradient ? targets : 1);
  if (!b.divisor) b.divisor = divisor.of(b.dtype);
  for_groups(cpu_kernels().binary);
  finish(sums, b.dtype, r);
}

// The sum of the rows' sample weights; their number without.
double sum_of_sample_weights(DType dtype, const void* sample_weight, int64_t N) {
  if (!sample_weight) return static_cast<double>(N);
  return by_precision(dtype, [&](auto s) {
    double sum = 0;
    for (int64_t i = 0; i < N; ++i) sum += static_cast<const decltype(s)*>(sample_weight)[i];
    return sum;
  });
}

// Rows in a part, of which the sums are added up in order: whole vectors of rows, if it has many.
int64_t rows_in_part(int64_t C) {
  constexpr int64_t kLogits = 1 << 14, kRows = 16;
  const int64_t rows = std::max<int64_t>(1, kLogits / C);
  return rows < kRows ? rows : rows / kRows * kRows;
}

void dense(const Dense& call, const Reduction& r) {
  GroupedDense d;
  static_cast<Dense&>(d) = call;
  d.rows_in_part = rows_in_part(d.C);
  d.wants_example_weights = r.divide_by == Reduction::kExampleWeights;
  std::vector<BinarySums> sums((d.N + d.rows_in_part - 1) / d.rows_in_part);
  d.sums = sums.data();
  const Divisor divisor(r.mean_gradient ? sum_of_sample_weights(d.dtype, d.sample_weight, d.N) : 1);
  if (!d.divisor) d.divisor = divisor.of(d.dtype);
  std::atomic<bool> enough = true;
  ts::parallel_for(0, static_cast<int64_t>(sums.size()), 1, [&](int64_t begin, int64_t end) {
    if (!cpu_kernels().dense(d, begin, end)) enough = false;
  });
  STD_TORCH_CHECK(enough, "imae_ext: out of memory");
  finish(sums, d.dtype, r);
}

// What a mean of two labels is divided by. Refuses a label that is no class, of the rows that count.
double sum_of_counting_rows(const Mixed& m) {
  Rows rows;
  rows.dtype = m.dtype;
  rows.N = m.N;
  rows.C = m.C;
  rows.ignore_index = m.ignore_index;
  rows.sample_weight = m.sample_weight;
  rows.target = m.other;
  if (cpu_kernels().count_targets(rows) < 0)  // perhaps only where the target is ignored
    for (int64_t i = 0; i < m.N; ++i)
      REFUSE_UNLESS(m.target[i] == m.ignore_index || m.other[i] == m.ignore_index ||
                    (m.other[i] >= 0 && m.other[i] < m.C));
  rows.target = m.target;
  return by_precision(m.dtype, [&](auto s) { return sum_of_target_weights<decltype(s)>(rows); });
}

void mixed(const Mixed& call, const Reduction& r) {
  GroupedMixed m;
  static_cast<Mixed&>(m) = call;
  m.rows_in_part = rows_in_part(m.C);
  std::vector<BinarySums> sums((m.N + m.rows_in_part - 1) / m.rows_in_part);
  m.sums = sums.data();
  const double targets = sum_of_counting_rows(m);
  const Divisor divisor(r.mean_gradient ? targets : 1);
  if (!m.divisor) m.divisor = divisor.of(m.dtype);
  ts::parallel_for(0, static_cast<int64_t>(sums.size()), 1,
                   [&](int64_t begin, int64_t end) { cpu_kernels().mixed(m, begin, end); });
  finish(sums, m.dtype, r);
}

constexpr Backend kBackend = {[](const Rows& rows) { return cpu_kernels().reads_in_place(rows); },
                              &ask_for_huge_pages,
                              &forward,
                              &backward,
                              &scale,
                              &binary,
                              &dense,
                              &mixed,
                              true,
                              &describe};
[[maybe_unused]] const bool added = add_backend(torch::headeronly::DeviceType::CPU, kBackend);

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(imae_ext, CPU, m) { implement_operators(m); }

}  // namespace imae
