// Warp and block operations: shuffles, votes, reductions, barriers.
#pragma once
#include <bit>
#include <cstdint>
#include <functional>
#include <source_location>
#include <type_traits>

#include "block.h"
#include "half.h"

namespace simt {

template <class T>
concept Shuffled =
    sizeof(T) <= 8 && (std::is_arithmetic_v<T> || std::is_same_v<T, __half> || std::is_same_v<T, __half2> ||
                       std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __nv_bfloat162>);

template <size_t kBytes>
using Word =
    std::conditional_t<kBytes == 8, uint64_t,
                       std::conditional_t<kBytes == 4, uint32_t, std::conditional_t<kBytes == 2, uint16_t, uint8_t>>>;

inline SIMT_NO_TSAN unsigned lane_index() { return current->index; }

/// Waits for the other lanes of `mask`; returns what `combine` leaves for this one.
SIMT_NO_TSAN inline uint64_t warp_operation(const char* what, std::source_location at, unsigned mask, Combine combine,
                                            uint64_t value, unsigned source) {
  Lane& me = *current;
  me.mask = mask;
  me.combine = combine;
  me.warp->value[me.index] = value;
  me.warp->source[me.index] = static_cast<unsigned char>(source);
  give_way(Wait::warp, {what, at});
  return me.warp->result[me.index];
}

inline void take_from_source(Warp& warp, unsigned mask) {
  for_each_bit(mask, [&](unsigned i) { warp.result[i] = warp.value[warp.source[i]]; });
}

inline void collect_votes(Warp& warp, unsigned mask) {
  uint64_t votes = 0;
  for_each_bit(mask, [&](unsigned i) { votes |= warp.value[i] << i; });
  for_each_bit(mask, [&](unsigned i) { warp.result[i] = votes; });
}

template <class T, class Operation>
void fold(Warp& warp, unsigned mask) {
  T all = static_cast<T>(warp.value[std::countr_zero(mask)]);
  for_each_bit(mask & (mask - 1), [&](unsigned i) { all = Operation()(all, static_cast<T>(warp.value[i])); });
  for_each_bit(mask, [&](unsigned i) { warp.result[i] = static_cast<uint64_t>(all); });
}

template <Shuffled T>
T shuffle(const char* what, std::source_location at, unsigned mask, T value, unsigned source) {
  using W = Word<sizeof(T)>;
  const uint64_t got = warp_operation(what, at, mask, take_from_source, __builtin_bit_cast(W, value), source);
  return __builtin_bit_cast(T, static_cast<W>(got));
}

inline unsigned vote(const char* what, std::source_location at, unsigned mask, bool predicate) {
  return static_cast<unsigned>(warp_operation(what, at, mask, collect_votes, predicate, lane_index()));
}

template <class Operation, class T>
T reduce(const char* what, std::source_location at, unsigned mask, T value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  const auto word = static_cast<uint64_t>(value);
  return static_cast<T>(warp_operation(what, at, mask, fold<T, Operation>, word, lane_index()));
}

struct Add {  // wraps
  unsigned operator()(unsigned a, unsigned b) const { return a + b; }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};

/// First lane of the caller's group of `width` lanes.
inline unsigned group_begin(unsigned width, std::source_location at) {
  if (width == 0 || width > kWarpSize || (width & (width - 1)) != 0)
    fail_here("a shuffle width that is not a power of two up to 32", at);
  return lane_index() & ~(width - 1);
}

/// Waits for all threads of the block; returns how many voted yes.
SIMT_NO_TSAN inline unsigned block_operation(const char* what, std::source_location at, bool predicate) {
  Lane& me = *current;
  me.vote = predicate;
  give_way(Wait::block, {what, at});
  return me.block->vote_result;
}

}  // namespace simt

#define SIMT_AT std::source_location at = std::source_location::current()

// Shuffles and votes exchange values but do not order memory; __syncwarp and __syncthreads do.

template <simt::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_AT) {
  const unsigned w = width;
  const unsigned begin = simt::group_begin(w, at);
  return simt::shuffle("__shfl_sync", at, mask, value, begin | (source & (w - 1)));
}

template <simt::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, SIMT_AT) {
  const unsigned me = simt::lane_index(), begin = simt::group_begin(width, at), source = me ^ lane_mask;
  return simt::shuffle("__shfl_xor_sync", at, mask, value, source < begin + width ? source : me);
}

template <simt::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_AT) {
  const unsigned me = simt::lane_index(), begin = simt::group_begin(width, at);
  return simt::shuffle("__shfl_down_sync", at, mask, value, delta < begin + width - me ? me + delta : me);
}

template <simt::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_AT) {
  const unsigned me = simt::lane_index(), begin = simt::group_begin(width, at);
  return simt::shuffle("__shfl_up_sync", at, mask, value, me - begin >= delta ? me - delta : me);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_AT) {
  return simt::vote("__ballot_sync", at, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_AT) {
  return simt::vote("__any_sync", at, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_AT) {
  return simt::vote("__all_sync", at, mask, predicate == 0) == 0;
}

template <class T>
T __reduce_add_sync(unsigned mask, T value, SIMT_AT) {
  return simt::reduce<simt::Add>("__reduce_add_sync", at, mask, value);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, SIMT_AT) {
  return simt::reduce<simt::Min>("__reduce_min_sync", at, mask, value);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, SIMT_AT) {
  return simt::reduce<simt::Max>("__reduce_max_sync", at, mask, value);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SIMT_AT) {
  return simt::reduce<std::bit_and<>>("__reduce_and_sync", at, mask, value);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SIMT_AT) {
  return simt::reduce<std::bit_or<>>("__reduce_or_sync", at, mask, value);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SIMT_AT) {
  return simt::reduce<std::bit_xor<>>("__reduce_xor_sync", at, mask, value);
}

/// The lanes that have not exited. Hardware may give fewer; a kernel that needs to know is wrong.
SIMT_NO_TSAN inline unsigned __activemask() { return ~simt::current->warp->exited; }

inline void __syncwarp(unsigned mask = simt::kFullMask, SIMT_AT) {
  simt::warp_operation("__syncwarp", at, mask, nullptr, 0, simt::lane_index());
}

inline void __syncthreads(SIMT_AT) { simt::block_operation("__syncthreads", at, false); }
inline int __syncthreads_count(int predicate, SIMT_AT) {
  return static_cast<int>(simt::block_operation("__syncthreads_count", at, predicate != 0));
}
inline int __syncthreads_or(int predicate, SIMT_AT) {
  return simt::block_operation("__syncthreads_or", at, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, SIMT_AT) {
  return simt::block_operation("__syncthreads_and", at, predicate == 0) == 0;
}
