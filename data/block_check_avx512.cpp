// The row for AVX-512. Everything that holds inline functions comes before the target is switched.
#if defined(__x86_64__)
#include "data/block_check.h"

#include <immintrin.h>

#include <cassert>
#include <climits>
#include <cstdlib>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi2,prefer-vector-width=512")
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsic headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#define XXH_VECTOR 3  // XXH_AVX512
#define SHOESTRING_BLOCK_CHECK avx512
#include "data/block_check_row.h"
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
