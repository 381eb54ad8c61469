// A program for the sanitizers: every kernel and tier on exactly sized heap arrays, blocks interleaved. What is
// computed is checked elsewhere; here nothing may be read or written that should not be, and nothing may race.
#include <cstdio>
#include <random>
#include <vector>

#include "kernels_library.h"

namespace {

constexpr int64_t kSizes[] = {8, 4, 2, 2};  // bytes, by dtype

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
  std::mt19937 random(1);
  const int64_t size = kSizes[p.dtype], n = p.N * p.C, wide = size == 8 ? 8 : 4;
  std::vector<unsigned char> logits((n + p.offset) * size), grad((n + p.offset) * size);
  for (auto& byte : logits) byte = static_cast<unsigned char>(random() & 0x3f);  // finite in every dtype
  std::vector<int64_t> target(p.N);
  for (auto& y : target) y = random() % 5 == 0 ? -100 : random() % 17 == 0 ? p.C : int64_t(random() % p.C);
  std::vector<unsigned char> class_weight(p.C * wide, 0x3f), sample_weight(p.N * wide, 0x3f), value(p.N * wide),
      saved(4 * p.N * wide), loss(wide), divisor(wide);
  const double formula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8, double(imae::FormulaId::kNCE), 2.0};
  int64_t sizes[3], strides[3];
  imae_simt::ForwardCall f{};
  set_rows(f.rows, p, machine, sizes, strides);
  f.rows.logits = logits.data() + p.offset * size;
  f.rows.target = target.data();
  f.rows.grad = grad.data() + p.offset * size;
  f.formula = formula;
  f.formula_count = 6;
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
  std::vector<unsigned char> infinite(wide, 0x7f);  // 0x7f7f.. is finite, 0x7f80.. and 0x7ff0.. are not
  imae_simt::scale({b.rows, n, class_weight.data(), size == 8});
  infinite[wide - 2] = size == 8 ? 0xf0 : 0x80;
  for (int64_t k = 0; k < wide - 2; ++k) infinite[k] = 0;
  imae_simt::scale({b.rows, n, infinite.data(), size == 8});
}

void run_describe(const Problem& p, const imae_simt::Machine& machine) {
  std::mt19937 random(1);
  const int64_t size = kSizes[p.dtype], wide = size == 8 ? 8 : 4;
  std::vector<unsigned char> logits((p.N * p.C + p.offset) * size), numbers[5], is_top(p.N);
  for (auto& byte : logits) byte = static_cast<unsigned char>(random() & 0x3f);
  for (auto& each : numbers) each.resize(p.N * wide);
  std::vector<int64_t> target(p.N);
  for (auto& y : target) y = random() % 5 == 0 ? -100 : random() % 17 == 0 ? p.C : int64_t(random() % p.C);
  const double formula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8};
  int64_t sizes[3], strides[3];
  imae_simt::DescribeCall d{};
  set_rows(d.rows, p, machine, sizes, strides);
  d.rows.logits = logits.data() + p.offset * size;
  d.rows.target = target.data();
  d.formula = formula, d.formula_count = 4;
  d.p = numbers[0].data(), d.example_weight = numbers[1].data(), d.log_p = numbers[2].data();
  d.is_top = is_top.data();
  imae_simt::describe(d);
  d.entropy = numbers[3].data(), d.sum_p2 = numbers[4].data();
  imae_simt::describe(d);
}

void run_binary(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  const int64_t size = kSizes[dtype], count = N * C, wide = size == 8 ? 8 : 4;
  std::mt19937 random(1);
  std::vector<unsigned char> logits(count * size), grad(count * size), target(count), value(count * wide), loss(wide),
      divisor(wide), per_class(C * wide, 0x3f), per_row(N * wide, 0x3f);
  for (auto& byte : logits) byte = static_cast<unsigned char>(random() & 0x3f);
  for (auto& t : target) t = static_cast<unsigned char>(random() % 4 ? random() % 2 : 255);
  const double formula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8, double(imae::FormulaId::kNCE), 2.0};
  imae_simt::BinaryCall b{};
  b.machine = machine;
  b.dtype = dtype, b.count = count;
  b.logits = logits.data(), b.target = target.data();
  b.has_ignored = 1, b.ignore_index = 255;
  b.weight = b.pos_weight = per_class.data(), b.sample_weight = per_row.data();
  b.repeat[0] = b.repeat[1] = 1, b.repeat[2] = C;
  b.period[0] = b.period[1] = C, b.period[2] = N;
  b.formula = formula, b.formula_count = 6;
  b.divide_by = imae::Reduction::kTargets;
  b.loss = loss.data(), b.divisor = divisor.data();
  imae_simt::binary(b);
  b.loss = nullptr, b.value = value.data();
  imae_simt::binary(b);
  b.value = b.divisor = nullptr;
  b.grad = grad.data(), b.grad_output = value.data(), b.divide_gradient = divisor.data();
  imae_simt::binary(b);
}

void run_dense(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  const int64_t size = kSizes[dtype], wide = size == 8 ? 8 : 4;
  std::mt19937 random(1);
  std::vector<unsigned char> logits(N * C * size), grad(N * C * size), target(N * C * wide), value(N * wide),
      loss(wide), divisor(wide), per_class(C * wide, 0x3f), per_row(N * wide, 0x3f);
  for (auto& byte : logits) byte = static_cast<unsigned char>(random() & 0x3f);
  for (int64_t k = 0; k < N * C; ++k)  // every third class has an amount
    for (int64_t byte = 0; byte < wide; ++byte) target[k * wide + byte] = k % 3 ? 0 : random() & 0x3f;
  const double formula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8, double(imae::FormulaId::kNCE), 2.0};
  imae_simt::DenseCall d{};
  d.machine = machine;
  d.dtype = dtype, d.N = N, d.C = C;
  d.logits = logits.data(), d.target = target.data();
  d.class_weight = per_class.data(), d.sample_weight = per_row.data();
  d.formula = formula, d.formula_count = 6;
  d.divide_by = imae::Reduction::kTargets;
  d.loss = loss.data(), d.divisor = divisor.data();
  imae_simt::dense(d);
  d.loss = nullptr, d.value = value.data();
  imae_simt::dense(d);
  d.value = d.divisor = nullptr;
  d.grad = grad.data(), d.grad_output = value.data(), d.divide_gradient = divisor.data();
  imae_simt::dense(d);
}

void run_mixed(int64_t dtype, int64_t N, int64_t C, const imae_simt::Machine& machine) {
  const int64_t size = kSizes[dtype], wide = size == 8 ? 8 : 4;
  std::mt19937 random(1);
  std::vector<unsigned char> logits(N * C * size), grad(N * C * size), lam(N * wide, 0x3e), value(N * wide), loss(wide),
      divisor(wide), per_class(C * wide, 0x3f), per_row(N * wide, 0x3f);
  for (auto& byte : logits) byte = static_cast<unsigned char>(random() & 0x3f);
  std::vector<int64_t> target(N), other(N);
  for (auto* labels : {&target, &other})
    for (auto& y : *labels) y = random() % 5 == 0 ? -100 : random() % 7 == 0 ? C : int64_t(random() % C);
  const double formula[] = {double(imae::FormulaId::kIMAE), 0.5, 8.0, 1e-8, double(imae::FormulaId::kNCE), 2.0};
  imae_simt::MixedCall m{};
  m.machine = machine;
  m.dtype = dtype, m.N = N, m.C = C;
  m.logits = logits.data(), m.target = target.data(), m.other = other.data();
  m.ignore_index = -100, m.lam = lam.data();
  m.class_weight = per_class.data(), m.sample_weight = per_row.data();
  m.formula = formula, m.formula_count = 6;
  m.divide_by = imae::Reduction::kTargets;
  m.loss = loss.data(), m.divisor = divisor.data();
  imae_simt::mixed(m);
  m.loss = nullptr, m.value = value.data();
  imae_simt::mixed(m);
  m.value = m.divisor = nullptr;
  m.grad = grad.data(), m.grad_output = value.data(), m.divide_gradient = divisor.data();
  imae_simt::mixed(m);
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
