// Sixteen elements at a time: the arithmetic of quantize_tile.h in AVX-512 lanes. For files that compile under
// `#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")`, included after it; everything has internal linkage.
//
// Rounding to a small float without a table: add to y a power of two so large that the sum's last bit weighs what the
// small float's last bit weighs in y's binade; the FPU's own rounding then rounds y, ties to even, subnormals included.
//   e = exponent of y, at least the least normal one;  sum = y + 2^(e + 23 - mantissa)
//   code = (low bits of sum) + (e - e_min) * 2^mantissa
// Only the low seven bits of a lane are the code: what stands above them is cleared where the sign comes in.
#pragma once

#include <immintrin.h>

#include "kernels/cleared_avx512.h"
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

/// Sixty-four elements in four vectors. Singles keep their order; BF16 come as the even and the odd elements of the
/// first thirty-two, then of the second, which costs half as much. `join` and `in_split_order` know the order.
[[gnu::always_inline]] inline void split(const float* x, __m512 out[4]) {
  for (int v = 0; v < 4; ++v) out[v] = _mm512_loadu_ps(x + 16 * v);
}
[[gnu::always_inline]] inline void split(const BFloat16* x, __m512 out[4]) {
  for (int half = 0; half < 2; ++half) {
    const __m512i both = _mm512_loadu_si512(x + 32 * half);
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xFFFF0000u));
    out[2 * half] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    out[2 * half + 1] = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
  }
}

/// Thirty-two factors, one per column, from the order of columns to the order of `split`.
inline void in_split_order(const float*, float*) {}
inline void in_split_order(const BFloat16*, float* factors) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512 low = _mm512_load_ps(factors);
  const __m512 high = _mm512_load_ps(factors + 16);
  _mm512_store_ps(factors, _mm512_permutex2var_ps(low, even, high));
  _mm512_store_ps(factors + 16, _mm512_permutex2var_ps(low, _mm512_or_si512(even, _mm512_set1_epi32(1)), high));
}

inline __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(quantize_tile::kMagnitude)));
}

/// Lanes of magnitude bits with those of NaN and infinities cleared.
inline __m512i finite_magnitude(__m512i magnitude) {
  const __m512i largest = _mm512_set1_epi32(static_cast<int>(quantize_tile::kLargestFinite));
  return _mm512_maskz_mov_epi32(_mm512_cmple_epi32_mask(magnitude, largest), magnitude);
}

/// The magnitude bits of thirty-two BF16; those of NaN and infinities cleared if asked.
template <bool kFiniteOnly>
__m512i magnitude16(__m512i x) {
  const __m512i bits = _mm512_and_si512(x, _mm512_set1_epi16(0x7FFF));
  if (!kFiniteOnly) return bits;
  return _mm512_maskz_mov_epi16(_mm512_cmplt_epu16_mask(bits, _mm512_set1_epi16(0x7F80)), bits);
}

/// Codes in the low seven bits of 32-bit lanes, without sign; |y| must not round past the largest finite value.
template <class Payload>
[[gnu::always_inline]] inline __m512i code_of(__m512 y) {
  using C = Constants<Payload>;
  constexpr int kDrop = 23 - C::mantissa;
  constexpr int kLow = -(C::least_exponent << C::mantissa) & 0xFF;  // even: the last bit of a tie stays what it is
  const __m512 least = _mm512_castsi512_ps(_mm512_set1_epi32(C::least_exponent << 23));
  const __m512i exponent = _mm512_and_si512(_mm512_castps_si512(cleared::larger_magnitude(y, least)),
                                            _mm512_set1_epi32(static_cast<int>(0xFF800000u)));
  const __m512i magic = _mm512_add_epi32(exponent, _mm512_set1_epi32((kDrop << 23) + kLow));
  const __m512i sum = _mm512_castps_si512(_mm512_add_ps(y, _mm512_castsi512_ps(magic)));
  return _mm512_add_epi32(sum, _mm512_srli_epi32(exponent, kDrop));
}

/// Codes of x * inverse for finite x and a scale that covers it: nothing can saturate.
template <class Payload>
[[gnu::always_inline]] inline __m512i encode(__m512 x, __m512 inverse) {
  return code_of<Payload>(_mm512_mul_ps(x, inverse));
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
  return _mm512_mask_mov_epi32(code_of<Payload>(bounded), nan, _mm512_set1_epi32(C::nan));
}

/// The codes of `split`'s vectors with the signs of their elements, as bytes in order.
[[gnu::always_inline]] inline __m512i join(const float* x, const __m512i code[4]) {
  constexpr int kFirstSelects = 0xCA;
  __m512i word[4];
  for (int v = 0; v < 4; ++v) {
    const __m512i sign = _mm512_srli_epi32(_mm512_loadu_si512(x + 16 * v), 24);
    word[v] = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0x7F), code[v], sign, kFirstSelects);
  }
  const __m512i mixed =
      _mm512_packus_epi16(_mm512_packus_epi32(word[0], word[1]), _mm512_packus_epi32(word[2], word[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return cleared::permute_epi32(order, mixed);
}
[[gnu::always_inline]] inline __m512i join(const BFloat16* x, const __m512i code[4]) {
  constexpr int kFirstSelects = 0xCA;
  __m512i word[2];
  for (int half = 0; half < 2; ++half) {
    const __m512i sign = _mm512_srli_epi16(_mm512_loadu_si512(x + 32 * half), 8);
    const __m512i both = _mm512_mask_mov_epi16(code[2 * half], 0xAAAAAAAAu, _mm512_slli_epi32(code[2 * half + 1], 16));
    word[half] = _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x7F), both, sign, kFirstSelects);
  }
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  return cleared::permute_epi64(order, _mm512_packus_epi16(word[0], word[1]));
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
