// Which instruction set a vector row (`*_simd.cpp`) runs on. Included before Highway by such files only, after their
// HWY_TARGET_INCLUDE.
//
// Rows are compiled for x86-64-v3 (AVX2) and x86-64-v4 (AVX-512) on x86, for the compiler's own target (NEON)
// elsewhere. Highway's run-time dispatch is not used: cpu_features() is the one place that says what may run.
#pragma once

#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_AVX2  // the least that is compiled; needs_simd refuses where it cannot run
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#else
#define HWY_COMPILE_ONLY_STATIC  // NEON on AArch64: sixteen lanes are arrays of vectors, which SVE does not allow
#endif

#include "kernels/base/cpu.h"

/// The function `name` of the best instruction set there is: `SHOESTRING_SIMD(forward)(args)`. A macro, since the sets
/// are namespaces of Highway's.
#if defined(__x86_64__)
#define SHOESTRING_SIMD(name) (shoestring::cpu_features().avx512 ? &N_AVX3::name : &N_AVX2::name)
#else
#define SHOESTRING_SIMD(name) (&HWY_STATIC_DISPATCH(name))
#endif
