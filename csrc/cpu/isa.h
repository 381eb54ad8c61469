// The instruction set of the headers in this folder. A kernel file (baseline.cpp, avx2.cpp, avx512.cpp) includes std.h,
// chooses its target and says which it is; a header that is read by itself, by an editor or a checker, takes the
// baseline's names.
#pragma once
#include "std.h"

#if !defined(IMAE_ISA)
#define IMAE_ISA baseline     // the namespace, so that the copies do not meet
#define IMAE_VECTOR_BYTES 16  // 16, 32 or 64
#endif

// Part of its caller, where its vectors are in registers. Under AddressSanitizer the kernels would take ten minutes to
// compile so, and less than one as functions of their own.
#if defined(__SANITIZE_ADDRESS__)
#define IMAE_INLINE inline
#else
#define IMAE_INLINE inline __attribute__((always_inline))
#endif
