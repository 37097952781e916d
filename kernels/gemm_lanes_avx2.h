// Inside of gemm, not for other code: eight 32-bit elements in AVX2 registers. Included behind
// `#pragma GCC target("avx2,fma,f16c")` and <immintrin.h>; the anonymous namespace keeps its AVX2 code in that file.
#pragma once

#include "kernels/base/dtype.h"

namespace shoestring::gemm_detail {
namespace {

constexpr std::int64_t kLanes = 8;

/// Eight elements that lie side by side, as f32: exact, with the bits of the formats' own conversions.
[[gnu::always_inline]] inline __m256 widen(const float* x) { return _mm256_loadu_ps(x); }

[[gnu::always_inline]] inline __m256 widen(const BFloat16* x) {
  const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
}

/// Eight codes as the upper halves of words.
[[gnu::always_inline]] inline __m128i upper_halves(const void* codes) {
  return _mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64(static_cast<const __m128i*>(codes)));
}

/// E4M3 read as an IEEE half: its exponent is biased by 8 less, and subnormals stay what they are.
[[gnu::always_inline]] inline __m256 widen(const E4M3* x) {
  const __m128i words = upper_halves(x);
  const __m128i nan_code = _mm_set1_epi16(0x7F00);
  const __m128i is_nan = _mm_cmpeq_epi16(_mm_and_si128(words, nan_code), nan_code);
  const __m128i half = _mm_and_si128(_mm_srai_epi16(words, 1), _mm_set1_epi16(static_cast<short>(0xBF80)));
  constexpr short kToNan = 0x3F80 ^ 0x7E00;
  const __m128i fixed = _mm_xor_si128(half, _mm_and_si128(is_nan, _mm_set1_epi16(kToNan)));
  return _mm256_mul_ps(_mm256_cvtph_ps(fixed), _mm256_set1_ps(256.0f));
}

/// E5M2 is the upper half of an IEEE half; all its NaN become the quiet one of their sign.
[[gnu::always_inline]] inline __m256 widen(const E5M2* x) {
  const __m256 value = _mm256_cvtph_ps(upper_halves(x));
  const __m256 nan =
      _mm256_or_ps(_mm256_and_ps(value, _mm256_set1_ps(-0.0f)), _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)));
  return _mm256_blendv_ps(value, nan, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
}

/// The first `count` of eight elements, and zeros.
template <class Element>
inline __m256 widen_some(const Element* x, std::int64_t count) {
  if (count >= kLanes) return widen(x);
  Element padded[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return widen(padded);
}

/// Eight vectors: the rows of one tile.
struct Tile {
  __m256 row[kLanes];
};

/// The 8 x 8 transposition.
[[gnu::always_inline]] inline void transpose(Tile& t) {
  __m256 a[8];
  __m256 b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_ps(t.row[2 * i], t.row[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_ps(t.row[2 * i], t.row[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
    b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xEE);
    b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
    b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t.row[i] = _mm256_permute2f128_ps(b[i], b[4 + i], 0x20);
    t.row[4 + i] = _mm256_permute2f128_ps(b[i], b[4 + i], 0x31);
  }
}

/// The first six of eight floats, and nothing behind them.
[[gnu::always_inline]] inline void store_six(float* to, __m256 x) {
  _mm_storeu_ps(to, _mm256_castps256_ps128(x));
  _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), _mm256_extractf128_ps(x, 1));
}

/// Writes `count` columns of eight rows. Six rows are stored as eight, for the next store to overwrite two, except
/// where `last` says that another block lies behind.
template <int kStored>
[[gnu::always_inline]] inline void store_columns(const Tile& tile, std::int64_t count, std::int64_t width, bool last,
                                                 float* to) {
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < kLanes; ++i) {
    if (i == count) return;
    if (kStored == kLanes || !last || i + 1 < count) {
      _mm256_storeu_ps(to + i * width, tile.row[i]);
    } else {
      store_six(to + i * width, tile.row[i]);
    }
  }
}

}  // namespace
}  // namespace shoestring::gemm_detail
