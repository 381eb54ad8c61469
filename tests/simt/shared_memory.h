// A block's shared memory. It starts as bytes 0xff, a NaN in every floating type, so that a read of what was never
// written shows.
//
// Static: `__shared__` variables are thread_local ones. So the linker gathers them, those of templates and inline
// functions too, in one segment of this executable or library, and the loader tells where it lies.
// Dynamic: an allocation of exactly the requested size, so that AddressSanitizer sees an overrun; a plain build
// has a canary behind it.
#pragma once
#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "sanitizers.h"

namespace simt {

inline constexpr unsigned char kPoison = 0xff;
inline constexpr size_t kMaxShared = 227 << 10;  // bytes a block can have on any device

struct Segment {
  unsigned char* begin = nullptr;
  size_t size = 0;
  bool holds(const void* p) const { return reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(begin) < size; }
};

static thread_local char own_shared;     // in this library's segment
inline thread_local char merged_shared;  // as the __shared__ variables of templates: one for all libraries of a
                                         // process, unless compiled with -fno-gnu-unique

/// The segment of the `__shared__` variables.
inline Segment find_static_shared() {
  own_shared = merged_shared = 0;
  asm volatile("" ::"r"(&own_shared) : "memory");  // the loader makes the segment when it is first used
  Segment found;
  const auto visit = [](dl_phdr_info* module, size_t, void* out) {
    for (int i = 0; i < module->dlpi_phnum; ++i) {
      const auto& header = module->dlpi_phdr[i];
      const Segment segment{static_cast<unsigned char*>(module->dlpi_tls_data), header.p_memsz};
      if (header.p_type != PT_TLS || !segment.holds(&own_shared)) continue;
      *static_cast<Segment*>(out) = segment;
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(visit, &found);
  if (!found.holds(&merged_shared))
    throw std::runtime_error("simt: __shared__ variables lie in another library: compile with -fno-gnu-unique");
  return found;
}

// Unseen by the sanitizers: the scheduler's handling of a block's memory is not the program's. The empty asm keeps
// the compiler from making of the loop a call to memcpy, which they would see.
#define SIMT_UNSEEN __attribute__((no_sanitize("address", "thread"), noinline))

SIMT_UNSEEN inline void copy_unseen(unsigned char* to, const unsigned char* from, size_t n) {
  if (!kSanitized) std::memcpy(to, from, n);
  for (size_t i = 0; kSanitized && i < n; ++i) {
    to[i] = from[i];
    asm volatile("");
  }
}

SIMT_UNSEEN inline void poison_unseen(unsigned char* to, size_t n) {
  if (!kSanitized) std::memset(to, kPoison, n);
  for (size_t i = 0; kSanitized && i < n; ++i) {
    to[i] = kPoison;
    asm volatile("");
  }
}

#undef SIMT_UNSEEN

class DynamicShared {
 public:
  DynamicShared() = default;
  explicit DynamicShared(size_t size) : size_(size) {
    void* p = nullptr;
    if (posix_memalign(&p, 16, size + kCanary) != 0) throw std::bad_alloc();
    bytes_.reset(static_cast<unsigned char*>(p));
    std::memset(bytes_.get() + size, kCanaryByte, kCanary);
  }
  void poison() {
#if SIMT_ASAN
    ASAN_UNPOISON_MEMORY_REGION(bytes_.get(), size_);
#endif
    poison_unseen(bytes_.get(), size_);
    tsan::forget(bytes_.get(), size_);
  }
  /// Its block has exited: to others' reads it is NaN again, and out of bounds for AddressSanitizer.
  void retire() {
    poison_unseen(bytes_.get(), size_);
#if SIMT_ASAN
    ASAN_POISON_MEMORY_REGION(bytes_.get(), size_);
#endif
  }
  unsigned char* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  bool overrun() const {
    for (size_t i = size_; i < size_ + kCanary; ++i)
      if (bytes_.get()[i] != kCanaryByte) return true;
    return false;
  }

 private:
  struct Free {
    void operator()(unsigned char* p) const { std::free(p); }
  };
  static constexpr size_t kCanary = kSanitized ? 0 : 64;
  static constexpr unsigned char kCanaryByte = 0xa5;
  std::unique_ptr<unsigned char, Free> bytes_;
  size_t size_ = 0;
};

}  // namespace simt
