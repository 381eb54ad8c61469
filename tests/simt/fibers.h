// Fibers: a stack each, and a switch between them that costs a few nanoseconds.
// One OS thread runs all fibers; the one that called simt::launch is `host_fiber`.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "sanitizers.h"

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT 1
#endif
#if SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

struct Stack {
  unsigned char* bottom = nullptr;
  size_t size = 0;
};

/// Stacks in one mapping, kept from launch to launch, a forbidden page under each.
class Stacks {
 public:
  Stacks() = default;
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  ~Stacks() { release(); }

  /// Makes at least `n` stacks; those handed out before are gone when it has to grow.
  void reserve(unsigned n) {
    if (n <= count_) return;
    release();
    void* p = mmap(nullptr, n * kStride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<unsigned char*>(p);
    count_ = n;
    for (unsigned i = 0; i < n; ++i) mprotect(base_ + i * kStride, kGuard, PROT_NONE);
  }

  Stack operator[](unsigned i) const {
    // Tops at different offsets in their page: equal ones would fight for the same few cache lines.
    const size_t shift = i % 32 * 128;
    return {base_ + i * kStride + kGuard, kStride - kGuard - shift};
  }

 private:
  void release() {
    if (base_) munmap(base_, count_ * kStride);
  }
  static constexpr size_t kGuard = 4096;
  static constexpr size_t kStride = (kSanitized ? 256 : 64) << 10;  // the sanitizers print their reports on it
  unsigned char* base_ = nullptr;
  unsigned count_ = 0;
};

#if SIMT_UCONTEXT

using Context = ucontext_t;

inline void prepare_context(Context& c, Stack stack, void (*entry)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack.bottom;
  c.uc_stack.ss_size = stack.size;
  c.uc_link = nullptr;
  makecontext(&c, entry, 0);
}
SIMT_NO_TSAN inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }

#else

using Context = void*;  // the stack pointer; all else that a call preserves lies on the stack

/// `noipa`: the compiler must take this for a call that may read and write any memory.
__attribute__((naked, noipa, no_sanitize("address", "thread", "undefined"))) inline void swap_stack_pointer(
    Context* /*from*/, Context /*to*/) {
  asm volatile(
      "push %%rbp\n push %%rbx\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n"
      "mov %%rsp, (%%rdi)\n"
      "mov %%rsi, %%rsp\n"
      "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbx\n pop %%rbp\n"
      "pop %%rcx\n"
      "jmp *%%rcx\n" ::  // not ret: the processor would predict a return to the fiber that just left
      : "memory");
}

inline void prepare_context(Context& c, Stack stack, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(stack.bottom + stack.size);
  *--top = nullptr;  // where a caller's address would be; `entry` finds the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // rbp rbx r12 r13 r14 r15
  c = top;
}
SIMT_NO_TSAN inline void switch_context(Context& from, Context& to) { swap_stack_pointer(&from, to); }

#endif

struct Fiber {
  Context context{};
  Stack stack;
  void* fake_stack = nullptr;  // AddressSanitizer's
  tsan::Fiber race_id{};
};

inline Fiber host_fiber;

/// Leaves `from`, to return here when something switches back to it; with `for_good`, never.
SIMT_NO_TSAN inline void switch_fiber(Fiber& from, Fiber& to, bool for_good = false) {
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack.bottom, to.stack.size);
#else
  (void)for_good;
#endif
  tsan::switch_to(to.race_id);
  switch_context(from.context, to.context);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

/// Must be the first thing that a fiber's entry does.
inline void fiber_entered() {
#if SIMT_ASAN
  const void* bottom = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &host_fiber.stack.size);
  host_fiber.stack.bottom = static_cast<unsigned char*>(const_cast<void*>(bottom));
#endif
}

/// Makes `f` start at `entry` on `stack`, whatever the stack was used for before.
inline void prepare_fiber(Fiber& f, Stack stack, void (*entry)()) {
  f.stack = stack;
  f.fake_stack = nullptr;
  f.race_id = tsan::create();
  tsan::forget(stack.bottom, stack.size);
#if SIMT_ASAN
  ASAN_UNPOISON_MEMORY_REGION(stack.bottom, stack.size);
#endif
  prepare_context(f.context, stack, entry);
}

}  // namespace simt
