// What the sanitizers must be told about fibers and about the CUDA memory model.
// Everything here is empty in a plain build, so the rest of the emulator calls it without conditions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#if defined(__has_feature)  // clang's spelling
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define SIMT_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define SIMT_TSAN 1
#endif

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if SIMT_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {  // exported by every libtsan, declared in compiler-rt's tsan_interface_java.h
void __tsan_java_init(unsigned long heap_begin, unsigned long heap_size);
void __tsan_java_alloc(unsigned long begin, unsigned long size);
void __tsan_java_free(unsigned long begin, unsigned long size);
}
/// The emulator's own bookkeeping is written by the scheduler and read by the fibers on one OS thread;
/// the race detector, which takes fibers for threads, must not look at it.
#define SIMT_NO_TSAN __attribute__((no_sanitize("thread"), noinline))
#else
#define SIMT_NO_TSAN
#endif

namespace simt {

#if SIMT_ASAN || SIMT_TSAN
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

namespace tsan {

#if SIMT_TSAN

inline constexpr bool kOn = true;
using Fiber = void*;

inline Fiber current() { return __tsan_get_current_fiber(); }
inline Fiber create() { return __tsan_create_fiber(0); }
inline void set_name(Fiber f, const std::string& name) { __tsan_set_fiber_name(f, name.c_str()); }
// No ordering by the switch itself: only the CUDA program's own barriers and fences order memory.
SIMT_NO_TSAN inline void switch_to(Fiber f) { __tsan_switch_to_fiber(f, __tsan_switch_to_fiber_no_sync); }

/// Performs `action(at)` in the name of `fiber`, without running it.
SIMT_NO_TSAN inline void act(Fiber fiber, void (*action)(void*), void* at) {
  const Fiber me = current();
  switch_to(fiber);
  action(at);
  switch_to(me);
}

/// Unlike __tsan_release, which adds to what `at` carries, this replaces it.
inline void release_store(void* at) { __atomic_store_n(static_cast<char*>(at), 0, __ATOMIC_RELEASE); }

/// Everything that `from` has done so far happens before what `to` does next.
inline void order(Fiber from, Fiber to) {
  static char tag;
  act(from, release_store, &tag);
  act(to, __tsan_acquire, &tag);
}

/// A barrier: what each of these fibers has done happens before what any of them does next.
inline void join(const std::vector<Fiber>& fibers) {
  static char tag;
  for (Fiber f : fibers) act(f, f == fibers[0] ? release_store : __tsan_release, &tag);
  for (Fiber f : fibers) act(f, __tsan_acquire, &tag);
}

/// A thread's end is ordered before the launch's end, not before the next block. Until then its fiber stays: the next
/// one would get its number, and be taken for it. Each needs almost 1 MB, so of a large grid only the last ones stay.
class Ended {
 public:
  void add(Fiber f) {
    act(f, __tsan_release, &tag_);
    fibers_.push_back(f);
    if (fibers_.size() > 2048) drop_first();
  }
  void finish_launch() {
    __tsan_acquire(&tag_);
    while (!fibers_.empty()) drop_first();
  }

 private:
  void drop_first() {
    __tsan_destroy_fiber(fibers_.front());
    fibers_.pop_front();
  }
  std::deque<Fiber> fibers_;
  char tag_ = 0;
};

/// Forgets all accesses to [p, p + n): the next block's stacks and shared memory lie at the addresses of the last
/// one's. Only the interface made for garbage-collected heaps can do that, so all memory is declared such a heap.
inline void forget(const void* p, size_t n) {
  static char lowest;
  static const bool declared = [] {
    const auto low = reinterpret_cast<uintptr_t>(&lowest) & ~uintptr_t{7};
    __tsan_java_init(low, (reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) - low) & ~uintptr_t{7});
    return true;
  }();
  (void)declared;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p) & ~uintptr_t{7};
  const uintptr_t size = (reinterpret_cast<uintptr_t>(p) + n - begin + 7) & ~uintptr_t{7};
  __tsan_java_free(begin, size);
  __tsan_java_alloc(begin, size);
}

/// __threadfence and relaxed atomics order memory only together: an atomic publishes what the thread did before its
/// last fence, and a fence makes visible what the thread's atomics have met. Two fibers that run nothing carry this.
class Fences {
 public:
  SIMT_NO_TSAN void fence(Fiber thread) {
    order(thread, courier(published_));
    order(courier(observed_), thread);
  }
  SIMT_NO_TSAN void before_atomic(void* at) {
    if (published_) act(published_, __tsan_release, at);
  }
  SIMT_NO_TSAN void after_atomic(void* at) { act(courier(observed_), __tsan_acquire, at); }
  void reset() {
    for (Fiber* f : {&published_, &observed_})
      if (*f) __tsan_destroy_fiber(std::exchange(*f, nullptr));
  }

 private:
  SIMT_NO_TSAN static Fiber courier(Fiber& f) { return f ? f : f = create(); }
  Fiber published_ = nullptr, observed_ = nullptr;
};

#else

inline constexpr bool kOn = false;
struct Fiber {};
inline Fiber current() { return {}; }
inline void set_name(Fiber, const std::string&) {}
inline Fiber create() { return {}; }
inline void switch_to(Fiber) {}
inline void order(Fiber, Fiber) {}
inline void join(const std::vector<Fiber>&) {}
struct Ended {
  void add(Fiber) {}
  void finish_launch() {}
};
inline void forget(const void*, size_t) {}
struct Fences {
  void fence(Fiber) {}
  void before_atomic(void*) {}
  void after_atomic(void*) {}
  void reset() {}
};

#endif

inline Ended ended;

}  // namespace tsan
}  // namespace simt
