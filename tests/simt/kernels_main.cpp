// A program for the sanitizers: every kernel and tier on exactly sized heap arrays, blocks interleaved. What is
// computed is checked elsewhere; here nothing may be read or written that should not be, and nothing may race.
#include <cstdio>
#include <random>
#include <vector>

#include "kernels_library.h"

namespace {

using Bytes = std::vector<unsigned char>;

constexpr int64_t kSizes[] = {8, 4, 2, 2};  // bytes, by dtype
constexpr double kFormula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8, double(imae::FormulaId::kNCE), 2.0};

// Finite numbers, in every dtype.
Bytes some_bytes(int64_t count) {
  static std::mt19937 random(1);
  Bytes bytes(count);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random() & 0x3f);
  return bytes;
}

// Some are ignored, and one in so many is no class.
std::vector<int64_t> some_labels(int64_t N, int64_t C, int one_in) {
  static std::mt19937 random(2);
  std::vector<int64_t> labels(N);
  for (auto& y : labels) y = random() % 5 == 0 ? -100 : random() % one_in == 0 ? C : int64_t(random() % C);
  return labels;
}

struct Problem {
  int64_t dtype, N, C, offset;
  bool strided;
};

template <class Call>
void set_rows(Call& rows, const Problem& p, const imae_simt::Machine& m, int64_t (&sizes)[3], int64_t (&strides)[3]) {
  sizes[0] = 1, sizes[1] = p.C, sizes[2] = p.N;
  if (!p.strided) sizes[0] = p.N, sizes[2] = 1;
  strides[0] = p.C * sizes[2], strides[1] = sizes[2], strides[2] = 1;
  rows.machine = m;
  rows.dtype = p.dtype;
  rows.dim = 3;
  rows.sizes = sizes;
  rows.logits_strides = rows.grad_strides = strides;
  rows.ignore_index = -100;
}

void run(const Problem& p, const imae_simt::Machine& machine) {
  const int64_t size = kSizes[p.dtype], n = p.N * p.C, wide = size == 8 ? 8 : 4;
  Bytes logits = some_bytes((n + p.offset) * size), grad((n + p.offset) * size);
  const std::vector<int64_t> target = some_labels(p.N, p.C, 17);
  Bytes class_weight(p.C * wide, 0x3f), sample_weight(p.N * wide, 0x3f), value(p.N * wide), saved(4 * p.N * wide),
      loss(wide), divisor(wide);
  int64_t sizes[3], strides[3];
  imae_simt::ForwardCall f{};
  set_rows(f.rows, p, machine, sizes, strides);
  f.rows.logits = logits.data() + p.offset * size;
  f.rows.target = target.data();
  f.rows.grad = grad.data() + p.offset * size;
  f.formula = kFormula;
  f.formula_count = std::size(kFormula);
  f.rows.class_weight = class_weight.data();
  f.rows.sample_weight = sample_weight.data();
  f.divide_by = f.mean_gradient = 1;
  f.loss = loss.data();
  imae_simt::forward(f);
  f.rows.grad = nullptr;
  f.mean_gradient = 0;
  f.coefficients = saved.data();
  f.divisor = divisor.data();
  imae_simt::forward(f);
  f.loss = nullptr;
  f.divide_by = 0;
  f.value = value.data();
  imae_simt::forward(f);
  imae_simt::BackwardCall b{};
  b.rows = f.rows;
  b.rows.grad = grad.data() + p.offset * size;
  b.coefficients = saved.data();
  b.grad_output = value.data();
  b.divisor = divisor.data();
  imae_simt::backward(b);
  Bytes infinite(wide, 0x7f);  // 0x7f7f.. is finite, 0x7f80.. and 0x7ff0.. are not
  imae_simt::scale({b.rows, n, class_weight.data(), size == 8});
  infinite[wide - 2] = size == 8 ? 0xf0 : 0x80;
  for (int64_t k = 0; k < wide - 2; ++k) infinite[k] = 0;
  imae_simt::scale({b.rows, n, infinite.data(), size == 8});
}

void run_describe(const Problem& p, const imae_simt::Machine& machine) {
  const int64_t size = kSizes[p.dtype], wide = size == 8 ? 8 : 4;
  Bytes logits = some_bytes((p.N * p.C + p.offset) * size), numbers[5], is_top(p.N);
  for (auto& each : numbers) each.resize(p.N * wide);
  const std::vector<int64_t> target = some_labels(p.N, p.C, 17);
  int64_t sizes[3], strides[3];
  imae_simt::DescribeCall d{};
  set_rows(d.rows, p, machine, sizes, strides);
  d.rows.logits = logits.data() + p.offset * size;
  d.rows.target = target.data();
  d.formula = kFormula, d.formula_count = 4;  // IMAE alone
  d.p = numbers[0].data(), d.example_weight = numbers[1].data(), d.log_p = numbers[2].data();
  d.is_top = is_top.data();
  imae_simt::describe(d);
  d.entropy = numbers[3].data(), d.sum_p2 = numbers[4].data();
  imae_simt::describe(d);
}

// What the calls of amounts share: arrays of N rows, and each way to ask for values, sums and gradients.
struct Arrays {
  const int64_t size, wide;
  Bytes logits, grad, value, loss, divisor, per_class, per_row;

  Arrays(int64_t dtype, int64_t N, int64_t C, int64_t values)
      : size(kSizes[dtype]),
        wide(size == 8 ? 8 : 4),
        logits(some_bytes(N * C * size)),
        grad(N * C * size),
        value(values * wide),
        loss(wide),
        divisor(wide),
        per_class(C * wide, 0x3f),
        per_row(N * wide, 0x3f) {}

  template <class Call>
  void run(Call& call, void (*kernel)(const Call&), int64_t dtype, const imae_simt::Machine& machine) {
    call.machine = machine;
    call.dtype = dtype, call.logits = logits.data();
    call.sample_weight = per_row.data();
    call.formula = kFormula, call.formula_count = std::size(kFormula);
    call.divide_by = imae::Reduction::kTargets;
    call.loss = loss.data(), call.divisor = divisor.data();
    kernel(call);
    call.loss = nullptr, call.value = value.data();
    kernel(call);
    call.value = call.divisor = nullptr;
    call.grad = grad.data(), call.grad_output = value.data(), call.divide_gradient = divisor.data();
    kernel(call);
  }
};

void run_binary(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  Arrays arrays(dtype, N, C, N * C);
  Bytes target = some_bytes(N * C);
  for (auto& t : target) t = t % 4 ? t % 2 : 255;
  imae_simt::BinaryCall b{};
  b.count = N * C, b.target = target.data();
  b.has_ignored = 1, b.ignore_index = 255;
  b.weight = b.pos_weight = arrays.per_class.data();
  b.repeat[0] = b.repeat[1] = 1, b.repeat[2] = C;
  b.period[0] = b.period[1] = C, b.period[2] = N;
  arrays.run(b, imae_simt::binary, dtype, machine);
}

void run_dense(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  Arrays arrays(dtype, N, C, N);
  Bytes target = some_bytes(N * C * arrays.wide);
  for (int64_t k = 0; k < N * C * arrays.wide; ++k)
    if (k / arrays.wide % 3) target[k] = 0;  // every third class has an amount
  imae_simt::DenseCall d{};
  d.N = N, d.C = C, d.target = target.data(), d.class_weight = arrays.per_class.data();
  arrays.run(d, imae_simt::dense, dtype, machine);
}

void run_mixed(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  Arrays arrays(dtype, N, C, N);
  const Bytes lam(N * arrays.wide, 0x3e);
  const std::vector<int64_t> target = some_labels(N, C, 7), other = some_labels(N, C, 11);
  imae_simt::MixedCall m{};
  m.N = N, m.C = C, m.class_weight = arrays.per_class.data();
  m.target = target.data(), m.other = other.data();
  m.ignore_index = -100, m.lam = lam.data();
  arrays.run(m, imae_simt::mixed, dtype, machine);
}

}  // namespace

int main() {
#ifdef IMAE_SIMT_FEW_TYPES
  constexpr int64_t kTypes[] = {1, 3};
#else
  constexpr int64_t kTypes[] = {0, 1, 2, 3};
#endif
  int64_t seed = 0;
  for (const int64_t dtype : kTypes) {
    for (const int64_t C : {3, 10, 33, 100, 129, 1001, 5000})
      for (const bool strided : {false, true}) {
        if (strided && C > 129) continue;
        const int64_t N = C > 1000 ? 3 : C > 64 ? 20 : 270;  // more than two blocks take at once
        const imae_simt::Machine machine{seed % 4, 2, 2, C == 5000 ? 12 << 10 : 99 << 10, 0};
        run_describe({dtype, N, C, seed % 8, strided}, machine);
        run({dtype, N, C, seed++ % 8, strided}, machine);
      }
    run_binary(dtype, 41, 7, {seed % 4, 2, 2, 99 << 10, 0});
    run_dense(dtype, 41, 7, {seed % 4, 2, 2, 99 << 10, 0});
    run_dense(dtype, 5, 1500, {seed % 4, 2, 2, 99 << 10, 0});
    run_mixed(dtype, 41, 7, {seed % 4, 2, 2, 99 << 10, 0});
    run_mixed(dtype, 5, 1500, {seed % 4, 2, 2, 99 << 10, 0});
    // 24 KB, and blocks that hold 16, two at a time: two clusters of two, of which one takes two rows
    run({dtype, 3, 24004 / kSizes[dtype], seed % 8, false}, {seed % 4, 2, 2, 36 << 10, 2});
  }
  std::puts("done");
}
