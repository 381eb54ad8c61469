// Rows of a large gradient are written past the caches, which need not read a line before it is written so, and would
// not hold it until it is used. They are sent there while the next rows are read, so that memory does both at once.
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

// Whether the nearest cache is too small for the rows of a block, their gradient and the logits of the next one.
template <class T>
IMAE_INLINE constexpr bool is_long(int64_t C) {
  return C > (sizeof(T) > 2 ? 256 : 1024);
}

// A row on its way: all but an incomplete first and last line, which it shares with its neighbours.
template <class T>
struct Sending {
  static constexpr int64_t kStep = IMAE_VECTOR_BYTES / sizeof(T);
  T* to = nullptr;  // the start of a line
  const T* from = nullptr;
  int64_t end = 0;

  // Elements [j, j + count)
  IMAE_INLINE void some(int64_t j, int64_t count) const {
    if (j < end)
      for (int64_t k = j; k < j + count; k += kStep) stream(to + k, from + k);
  }
  void all() const {
    for (int64_t j = 0; j < end; j += kStep) stream(to + j, from + j);
  }
};

// Where a row of gradient is written: in its place, or in its slot, over the exponentials that it is made of. There it
// waits until the slot is wanted for the exponentials of another row, and is sent just before them. No line that went
// past the caches is written again, which would fetch it.
template <class T>
class Outlet {
 public:
  // Whether a gradient is large enough to be sent. Half types take longer so: their rows are half as much to write, and
  // as much to compute. So do short rows, for their incomplete lines, and rows that fill the second cache.
  static bool serves(const void* grad, int64_t N, int64_t C) {
    constexpr int64_t kLarge = 16 * 1024 * 1024, kLongest = 512 * 1024;  // bytes
    constexpr bool kWide = sizeof(T) > 2;
    return kStreams && kWide && grad && is_long<T>(C) && C * int64_t(sizeof(T)) <= kLongest &&
           N * C * int64_t(sizeof(T)) >= kLarge && reinterpret_cast<uintptr_t>(grad) % sizeof(T) == 0;
  }
  void open(int64_t C, void* slots, int64_t step) { C_ = C, slots_ = static_cast<T*>(slots), step_ = step; }
  IMAE_INLINE bool is_open() const { return slots_ != nullptr; }
  // Where to write the row of slot i, whose place is `at`.
  IMAE_INLINE T* place(int i, T* at) {
    if (!is_open()) return at;
    waiting_[i] = at;
    return slots_ + i * step_;
  }
  // The row that waits in slot i, if one does. The slot may then be written over as far as the row has been sent.
  Sending<T> send(int i) {
    T* const at = waiting_[i];
    if (!at) return {};
    waiting_[i] = nullptr;
    constexpr int64_t kLine = 64 / sizeof(T), kAhead = 8 * 1024 / sizeof(T);
    const T* const from = slots_ + i * step_;
    const auto before = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(at) % 64 / sizeof(T));
    const int64_t lines = (C_ - before) / kLine * kLine, end = before + lines;
    __builtin_prefetch(at + (kAhead / C_ + 1) * C_, 1);  // a line that a later row is to share
    __builtin_memcpy(at, from, before * sizeof(T));
    __builtin_memcpy(at + end, from + end, (C_ - end) * sizeof(T));
    return {at + before, from + before, lines};
  }
  void close() {
    if (!is_open()) return;
    for (int i = 0; i < kSlots; ++i) send(i).all();
    finish_streams();
  }

 private:
  static constexpr int kSlots = 128 / sizeof(T);  // rows of a block, at most: kBlock vectors
  T* waiting_[kSlots] = {};
  T* slots_ = nullptr;
  int64_t C_ = 0, step_ = 0;
};

}  // namespace imae::IMAE_ISA
