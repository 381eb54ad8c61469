// The order in which threads, warps and blocks run. Seed 0: natural; 1: reversed; >= 2: drawn anew at every step.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace simt {

class Order {
 public:
  explicit Order(unsigned seed) : seed_(seed), state_(seed) {}

  bool drawn() const { return seed_ >= 2; }
  unsigned begin() const { return seed_ == 1 ? 31 : 0; }
  unsigned after(unsigned i) const { return (seed_ == 1 ? i - 1 : i + 1) & 31; }

  /// The first set bit from `start` on, around the word; of a drawn order, any.
  unsigned pick(unsigned set, unsigned start) {
    if (!drawn()) return next(set, start);
    for (uint32_t skip = below(static_cast<uint32_t>(std::popcount(set))); skip > 0; --skip) set &= set - 1;
    return static_cast<unsigned>(std::countr_zero(set));
  }

  /// For how many steps a drawn choice of a warp stands: some warps run far ahead of the others.
  unsigned burst() { return drawn() ? 1u << below(7) : 1; }

  /// Calls f(i) once for each set bit.
  template <class F>
  void each(unsigned set, F f) {
    while (set) {
      const unsigned i = next(set, drawn() ? below(32) : begin());
      set &= ~(1u << i);
      f(i);
    }
  }

  /// The blocks of the grid in the order in which they start.
  std::vector<uint32_t> blocks(uint32_t n) {
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    if (seed_ == 1) std::reverse(order.begin(), order.end());
    if (drawn())
      for (uint32_t i = n; i > 1; --i) std::swap(order[i - 1], order[below(i)]);
    return order;
  }

  /// A number in [0, n), evenly enough (splitmix64).
  uint32_t below(uint32_t n) {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>(((z >> 32) * n) >> 32);
  }

 private:
  unsigned next(unsigned set, unsigned start) const {
    if (seed_ == 1) return (start - static_cast<unsigned>(std::countl_zero(std::rotr(set, start + 1)))) & 31;
    return (start + static_cast<unsigned>(std::countr_zero(std::rotr(set, start)))) & 31;
  }

  unsigned seed_;
  uint64_t state_;
};

}  // namespace simt
