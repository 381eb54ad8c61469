// Rows of a large gradient are written past the caches, which need not read a line before it is written so, and would
// not hold it until it is used.
#pragma once
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

#if defined(IMAE_X86)
constexpr bool kStreams = true;
IMAE_INLINE void stream(void* to, const void* from) {  // IMAE_VECTOR_BYTES, of which `to` is a multiple
#if IMAE_VECTOR_BYTES == 64
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif IMAE_VECTOR_BYTES == 32
  _mm256_stream_si256(static_cast<__m256i*>(to), _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#else
  _mm_stream_si128(static_cast<__m128i*>(to), _mm_loadu_si128(static_cast<const __m128i*>(from)));
#endif
}
IMAE_INLINE void finish_streams() { _mm_sfence(); }
#else
constexpr bool kStreams = false;
IMAE_INLINE void stream(void*, const void*) {}
IMAE_INLINE void finish_streams() {}
#endif

// Where a row is written: in its place, or near by, to be copied there when it is complete. No line that went past the
// caches is written again, which would fetch it.
template <class T>
class Outlet {
 public:
  Outlet() = default;
  Outlet(const Outlet&) = delete;
  ~Outlet() {
    if (past_) finish_streams();
  }
  // Half types take longer so: their rows are half as much to write, and as much to compute. So do short rows, for
  // their incomplete lines.
  void open(const void* grad, int64_t N, int64_t C) {
    constexpr int64_t kLarge = 16 * 1024 * 1024, kShort = 1024;  // bytes
    constexpr bool kWide = sizeof(T) > 2;
    past_ = kStreams && kWide && grad && C * int64_t(sizeof(T)) >= kShort && C <= kNear &&
            N * C * int64_t(sizeof(T)) >= kLarge && reinterpret_cast<uintptr_t>(grad) % sizeof(T) == 0;
  }
  IMAE_INLINE bool past() const { return past_; }
  IMAE_INLINE T* row(T* at) { return past_ ? near_ : at; }
  IMAE_INLINE void finish(T* at, int64_t C) const {
    if (past_) copy(at, C);
  }

 private:
  // All but an incomplete first and last line, which the row shares with its neighbours.
  __attribute__((noinline)) void copy(T* at, int64_t C) const {
    constexpr int64_t kStep = IMAE_VECTOR_BYTES / sizeof(T), kLine = 64 / sizeof(T);
    const auto before = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(at) % 64 / sizeof(T));
    const int64_t end = before + (C - before) / kLine * kLine;
    __builtin_prefetch(at + kNear / C * C, 1);  // a line that a later row is to share
    __builtin_memcpy(at, near_, before * sizeof(T));
    for (int64_t j = before; j < end; j += kStep) stream(at + j, near_ + j);
    __builtin_memcpy(at + end, near_ + end, (C - end) * sizeof(T));
  }

  static constexpr int64_t kNear = 8 * 1024 / sizeof(T);  // classes
  alignas(64) T near_[kNear];
  bool past_ = false;
};

}  // namespace imae::IMAE_ISA
