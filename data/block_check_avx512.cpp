#include "data/block_check.h"

#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <climits>
#include <cstdlib>
#include <cstring>

// The portable code again, compiled for wider registers: XXH3 picks its AVX-512 kernel from the target, and the
// compiler turns the loops into 64-byte maxima.
#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,bmi2,prefer-vector-width=512")
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own intrinsic headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#define XXH_VECTOR 3  // XXH_AVX512, by name: a target pragma does not define __AVX512F__ for a separate preprocessor
#endif
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace shoestring::block_check::avx512 {

std::uint64_t checksum(const void* data, std::size_t bytes) { return XXH3_64bits(data, bytes); }

std::uint32_t largest_token(const void* tokens, std::size_t count, std::uint32_t token_bytes) {
  if (token_bytes == 2) {
    const auto* ids = static_cast<const std::uint16_t*>(tokens);
    std::uint16_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) largest = ids[i] > largest ? ids[i] : largest;
    return largest;
  }
  const auto* ids = static_cast<const std::uint32_t*>(tokens);
  std::uint32_t largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = ids[i] > largest ? ids[i] : largest;
  return largest;
}

}  // namespace shoestring::block_check::avx512

#if defined(__x86_64__)
#pragma GCC diagnostic pop
#pragma GCC pop_options
#endif
