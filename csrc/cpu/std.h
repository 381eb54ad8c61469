// Everything from outside the project that the CPU kernels use, included before a file chooses its target: an inline
// function of the standard library compiled for AVX-512 must never be the copy that the linker keeps.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <numbers>
#include <type_traits>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)
#define IMAE_X86
#include <immintrin.h>
#endif
