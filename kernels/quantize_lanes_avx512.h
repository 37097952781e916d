// Sixteen elements at a time: the arithmetic of quantize_tile.h in AVX-512 lanes. For files that compile under
// `#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")`, included after it; everything has internal linkage.
//
// Rounding to a small float without a table: add to |y| a power of two so large that the sum's last bit weighs what the
// small float's last bit weighs in y's binade; the FPU's own rounding then rounds y, ties to even, subnormals included.
//   e = exponent of |y|, at least the least normal one;  sum = |y| + 2^(e + 23 - mantissa)
//   code = (low bits of sum) + (e - e_min) * 2^mantissa
#pragma once

#include <immintrin.h>

#include "kernels/quantize_tile.h"

namespace shoestring::quantization::lanes {
namespace {

template <class Payload>
struct Constants;
template <>
struct Constants<E4M3> {
  static constexpr int mantissa = 3;
  static constexpr int least_exponent = 127 - 6;  // biased as in a single
  static constexpr int nan = 0x7F;
  static constexpr quantize_tile::Format format = quantize_tile::kE4M3;
};
template <>
struct Constants<E5M2> {
  static constexpr int mantissa = 2;
  static constexpr int least_exponent = 127 - 14;
  static constexpr int nan = 0x7E;
  static constexpr quantize_tile::Format format = quantize_tile::kE5M2;
};

inline __m512 load(const float* x) { return _mm512_loadu_ps(x); }
inline __m512 load(const BFloat16* x) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(quantize_tile::kMagnitude)));
}

/// Lanes of magnitude bits with those of NaN and infinities cleared.
inline __m512i finite_magnitude(__m512i magnitude) {
  const __m512i largest = _mm512_set1_epi32(static_cast<int>(quantize_tile::kLargestFinite));
  return _mm512_maskz_mov_epi32(_mm512_cmple_epi32_mask(magnitude, largest), magnitude);
}

/// Codes in 32-bit lanes, without sign, of y given as its magnitude; |y| must not round past the largest finite value.
template <class Payload>
__m512i code_of_magnitude(__m512 y) {
  using C = Constants<Payload>;
  constexpr int kDrop = 23 - C::mantissa;
  const __m512i bits = _mm512_castps_si512(y);
  const __m512i exponent = _mm512_max_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7F800000)),
                                            _mm512_set1_epi32(C::least_exponent << 23));
  const __m512i magic = _mm512_add_epi32(exponent, _mm512_set1_epi32(kDrop << 23));
  const __m512i sum = _mm512_castps_si512(_mm512_add_ps(y, _mm512_castsi512_ps(magic)));
  const __m512i binade = _mm512_srli_epi32(exponent, kDrop);
  const __m512i base =
      _mm512_add_epi32(exponent, _mm512_set1_epi32((kDrop << 23) + (C::least_exponent << C::mantissa)));
  return _mm512_sub_epi32(_mm512_add_epi32(sum, binade), base);
}

/// `code` with the sign of `x`, in 32-bit lanes.
inline __m512i with_sign(__m512i code, __m512 x) {
  constexpr int kFirstOrBoth = 0xF8;  // a | (b & c)
  return _mm512_ternarylogic_epi32(code, _mm512_srli_epi32(_mm512_castps_si512(x), 24), _mm512_set1_epi32(0x80),
                                   kFirstOrBoth);
}

/// Codes of x * inverse for finite x and a scale that covers it: nothing can saturate.
template <class Payload>
__m512i encode(__m512 x, __m512 inverse) {
  const __m512 y = _mm512_mul_ps(_mm512_castsi512_ps(magnitude(x)), inverse);
  return with_sign(code_of_magnitude<Payload>(y), x);
}

/// Codes of x * inverse for any x and scale; adds to `saturated` the lanes that round past the largest value.
template <class Payload>
__m512i encode_saturating(__m512 x, __m512 inverse, std::int64_t& saturated) {
  using C = Constants<Payload>;
  const __m512i bits = magnitude(_mm512_mul_ps(x, inverse));
  const __mmask16 nan = _mm512_cmpgt_epi32_mask(bits, _mm512_set1_epi32(0x7F800000));
  const __mmask16 over = _mm512_cmpge_epi32_mask(bits, _mm512_set1_epi32(static_cast<int>(C::format.saturates_from)));
  saturated += __builtin_popcount(static_cast<unsigned>(over & ~nan));
  const __m512 bounded = _mm512_min_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(C::format.max_finite));
  const __m512i code = _mm512_mask_mov_epi32(code_of_magnitude<Payload>(bounded), nan, _mm512_set1_epi32(C::nan));
  return with_sign(code, x);
}

/// Sixty-four codes in 32-bit lanes to bytes, in order.
inline __m512i pack(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i mixed = _mm512_packus_epi16(_mm512_packus_epi32(a, b), _mm512_packus_epi32(c, d));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, mixed);
}

/// quantize_tile::scale_of in lanes: scales and inverses of sixteen tiles from their finite amax bits.
template <class Payload>
void scales_of(__m512i amax, ScaleKind kind, __m512& scale, __m512& inverse) {
  constexpr quantize_tile::Format kFormat = Constants<Payload>::format;
  const __m512 one = _mm512_set1_ps(1.0f);
  const __mmask16 zero = _mm512_testn_epi32_mask(amax, amax);
  if (kind == ScaleKind::f32) {
    const __m512 quotient = _mm512_div_ps(_mm512_castsi512_ps(amax), _mm512_set1_ps(kFormat.max_finite));
    scale = _mm512_mask_mov_ps(_mm512_max_ps(quotient, _mm512_set1_ps(0x1p-126f)), zero, one);
    inverse = _mm512_div_ps(one, scale);
    return;
  }
  const __m512i raised = _mm512_srli_epi32(_mm512_add_epi32(amax, _mm512_set1_epi32(0x1FFFFF)), 23);
  const __m512i exponent =
      _mm512_max_epi32(_mm512_sub_epi32(raised, _mm512_set1_epi32(kFormat.max_exponent)), _mm512_set1_epi32(1));
  const __m512i opposite = _mm512_sub_epi32(_mm512_set1_epi32(254), exponent);
  scale = _mm512_mask_mov_ps(_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)), zero, one);
  inverse = _mm512_mask_mov_ps(_mm512_castsi512_ps(_mm512_slli_epi32(opposite, 23)), zero, one);
}

}  // namespace
}  // namespace shoestring::quantization::lanes
