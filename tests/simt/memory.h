// Global and shared memory: atomics, fences, loads and stores with cache hints.
#pragma once
#include <atomic>
#include <cstdint>
#include <source_location>
#include <type_traits>

#include "block.h"
#include "warp.h"

namespace simt {

template <class T>
void check_aligned(const T* p, std::source_location at) {
  if (reinterpret_cast<uintptr_t>(p) % alignof(T) != 0) fail_here("misaligned access", at);
}

SIMT_NO_TSAN inline Lane& current_lane() { return *current; }
SIMT_NO_TSAN inline unsigned char* dynamic_shared() { return current->block->dynamic_begin; }
SIMT_NO_TSAN inline tsan::Fiber race_id(const Lane& lane) { return lane.fiber.race_id; }

/// Sets *p to f(*p) and returns what it was. Relaxed, as on the device: it orders memory only together with fences.
/// Others may run before it, but not within.
template <class T, class F>
T atomic_update(const char* what, std::source_location at, T* p, F f) {
  check_aligned(p, at);
  give_way(Wait::none, {what, at});
  Lane& me = current_lane();
  me.fences.before_atomic(p);
  std::atomic_ref<T> value(*p);
  T old = value.load(std::memory_order_relaxed);
  while (!value.compare_exchange_weak(old, f(old), std::memory_order_relaxed)) {
  }
  me.fences.after_atomic(p);
  return old;
}

}  // namespace simt

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> value, SIMT_AT) {
  return simt::atomic_update("atomicAdd", at, p, [=](T old) {
    if constexpr (std::is_same_v<T, int>)
      return static_cast<T>(simt::Add()(old, value));
    else
      return old + value;
  });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> value, SIMT_AT) {
  return simt::atomic_update("atomicMax", at, p, [=](T old) { return simt::Max()(old, value); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> value, SIMT_AT) {
  return simt::atomic_update("atomicMin", at, p, [=](T old) { return simt::Min()(old, value); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> value, SIMT_AT) {
  return simt::atomic_update("atomicExch", at, p, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value, SIMT_AT) {
  return simt::atomic_update("atomicCAS", at, p, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit, SIMT_AT) {
  return simt::atomic_update("atomicInc", at, p, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned limit, SIMT_AT) {
  return simt::atomic_update("atomicDec", at, p,
                             [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

/// Order memory for the whole device. A fence publishes nothing by itself: another thread sees what was written
/// before it through an atomic after it, and needs a fence of its own between that atomic and its reads.
inline void __threadfence(SIMT_AT) {
  simt::give_way(simt::Wait::none, {"__threadfence", at});
  simt::Lane& me = simt::current_lane();
  me.fences.fence(simt::race_id(me));
}
/// Ordering within the block is left to barriers: the race detector takes no notice of this one.
inline void __threadfence_block(SIMT_AT) { simt::give_way(simt::Wait::none, {"__threadfence_block", at}); }
inline void __nanosleep(unsigned, SIMT_AT) { simt::give_way(simt::Wait::none, {"__nanosleep", at}); }

#define SIMT_LOAD(name)         \
  template <class T>            \
  T name(const T* p, SIMT_AT) { \
    simt::check_aligned(p, at); \
    return *p;                  \
  }
#define SIMT_STORE(name)                                    \
  template <class T>                                        \
  void name(T* p, std::type_identity_t<T> value, SIMT_AT) { \
    simt::check_aligned(p, at);                             \
    *p = value;                                             \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldcv)
SIMT_LOAD(__ldlu)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwb)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE
