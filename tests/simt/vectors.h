// CUDA's short vector types, with CUDA's alignment: an aligned 16-byte load is one instruction on the device.
// Kernels read all kinds of data through them, hence `may_alias`.
#pragma once

#define SIMT_VECTOR_2(T, name)                                          \
  struct alignas(2 * sizeof(T)) [[gnu::may_alias]] name##2 { T x, y; }; \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }

#define SIMT_VECTORS(T, name)                                                 \
  SIMT_VECTOR_2(T, name)                                                      \
  struct name##3 { T x, y, z; };                                              \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }          \
  struct alignas(4 * sizeof(T)) [[gnu::may_alias]] name##4 { T x, y, z, w; }; \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

SIMT_VECTORS(signed char, char)
SIMT_VECTORS(unsigned char, uchar)
SIMT_VECTORS(short, short)
SIMT_VECTORS(unsigned short, ushort)
SIMT_VECTORS(int, int)
SIMT_VECTORS(unsigned, uint)
SIMT_VECTORS(float, float)
SIMT_VECTOR_2(double, double)
SIMT_VECTOR_2(long long, longlong)
SIMT_VECTOR_2(unsigned long long, ulonglong)

#undef SIMT_VECTORS
#undef SIMT_VECTOR_2

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
