// For wheels: has a build on a new glibc ask for no newer one than 2.28, nor for a libstdc++ newer than such a
// system's. setup.py includes it before every source if IMAE_OLD_GLIBC=1; auditwheel tells whether a symbol is missing
// here.
#pragma once

#if defined(__linux__) && defined(__x86_64__) && !defined(__CUDACC__)
// exp, log and pow of 2.29 differ from those before in how they report errors, through errno, which nothing reads.
__asm__(".symver exp,exp@GLIBC_2.2.5");
__asm__(".symver log,log@GLIBC_2.2.5");
__asm__(".symver pow,pow@GLIBC_2.2.5");
#endif

#if defined(__linux__) && !defined(__CUDACC__)
// libstdc++ asks glibc 2.32 whether a second thread runs, to count references without atomics. 0: one might.
extern "C" {
__attribute__((weak, visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif

#if defined(IMAE_CUDA_ARCHS) && !defined(__CUDACC__) && __has_include(<bits/c++config.h>)
// The string streams of torch's headers have members for C++20 that only a newer libstdc++ has: they are compiled here.
#include <bits/c++config.h>
#undef _GLIBCXX_EXTERN_TEMPLATE
#define _GLIBCXX_EXTERN_TEMPLATE 0
#endif
