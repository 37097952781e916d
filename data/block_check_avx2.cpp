// The row for AVX2. Everything that holds inline functions comes before the target is switched.
#if defined(__x86_64__)
#include "data/block_check.h"

#include <immintrin.h>

#include <cassert>
#include <climits>
#include <cstdlib>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx2,bmi2")
#define XXH_VECTOR 2  // XXH_AVX2
#define SHOESTRING_BLOCK_CHECK avx2
#include "data/block_check_row.h"
#pragma GCC pop_options
#endif
