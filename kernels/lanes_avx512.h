// 16 floats at a time from rows of f32 or bf16, in AVX-512, for the vector rows of ops. Not for the reader of models.
//
// bf16 is widened exactly and rounded to nearest even as BFloat16(float) does, subnormals and NaN included (the
// processor's own conversion flushes subnormals). Sums run in a fixed order.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/base/dtype.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::lanes_avx512 {

inline constexpr std::int64_t kLanes = 16;

/// The first `count` lanes, all of them from 16 on.
__attribute__((always_inline)) inline __mmask16 first(std::int64_t count) {
  return count >= kLanes ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1u << count) - 1u);
}

__attribute__((always_inline)) inline __m512 widen(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

__attribute__((always_inline)) inline __m256i narrow(__m512 value) {
  const __m512i raw = _mm512_castps_si512(value);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(raw, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(raw, _mm512_set1_epi32(0x7FFF)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i quieted = _mm512_mask_or_epi32(rounded, nan, raw, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(quieted, 16));
}

__attribute__((always_inline)) inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
__attribute__((always_inline)) inline __m512 load(const BFloat16* from) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
/// Lanes outside the mask are 0 and their memory is not touched.
__attribute__((always_inline)) inline __m512 load(const float* from, __mmask16 mask) {
  return _mm512_maskz_loadu_ps(mask, from);
}
__attribute__((always_inline)) inline __m512 load(const BFloat16* from, __mmask16 mask) {
  return widen(_mm256_maskz_loadu_epi16(mask, from));
}

__attribute__((always_inline)) inline void store(float* to, __m512 value) { _mm512_storeu_ps(to, value); }
__attribute__((always_inline)) inline void store(BFloat16* to, __m512 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(value));
}
__attribute__((always_inline)) inline void store(float* to, __m512 value, __mmask16 mask) {
  _mm512_mask_storeu_ps(to, mask, value);
}
__attribute__((always_inline)) inline void store(BFloat16* to, __m512 value, __mmask16 mask) {
  _mm256_mask_storeu_epi16(to, mask, narrow(value));
}

/// What a store to this format and a load again give.
__attribute__((always_inline)) inline __m512 rounded(const float*, __m512 value) { return value; }
__attribute__((always_inline)) inline __m512 rounded(const BFloat16*, __m512 value) { return widen(narrow(value)); }

/// Halves added to halves until one lane is left.
__attribute__((always_inline)) inline float sum(__m512 value) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps(value, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace shoestring::lanes_avx512

#pragma GCC pop_options
