// exp and sigmoid of 16 floats in AVX-512, for the vector rows of ops. Not for the reader of models.
//
// exp(x) = 2^n * e^r, n = round(x log2 e), r = x - n ln 2 in two parts, e^r - 1 - r = r^2 * a polynomial of degree 4
// (minimax on |r| <= ln 2 / 2, error 0.05 ulp). Bound, checked on every float: at most 1 ulp where the result is
// normal, less than the least subnormal below. exp(-inf) = 0, exp(inf) = inf, NaN stays NaN, exp(0) = 1 exactly.
#pragma once

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::lanes_avx512 {

__attribute__((always_inline)) inline __m512 exp(__m512 x) {
  // Past these bounds the result is infinite or 0 anyway; max and min return their second operand for NaN.
  x = _mm512_min_ps(_mm512_set1_ps(89.0f), _mm512_max_ps(_mm512_set1_ps(-105.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);  // exact: 15 bits of ln 2 times 8 bits of n
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);      // the rest of ln 2
  __m512 q = _mm512_set1_ps(0x1.6a2350p-10f);
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.123a6cp-7f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.5558f4p-5f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.555490p-3f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0x1.fffffcp-2f));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(_mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f)), n);
}

/// 1 / d for d in [1, 2^120], within 1.5 ulp: one Newton step takes a guess of 14 bits below an ulp.
__attribute__((always_inline)) inline __m512 reciprocal(__m512 d) {
  const __m512 guess = _mm512_rcp14_ps(d);
  const __m512 error = _mm512_fnmadd_ps(d, guess, _mm512_set1_ps(1.0f));
  return _mm512_fmadd_ps(guess, error, guess);
}

/// s = 1 / (1 + exp(-x)) within 3 ulp for x >= -80; below, the value at -80 (1.8e-35), so the absolute error stays
/// under 2e-35. NaN stays NaN.
struct Sigmoid {
  __m512 value;
  __m512 complement;  ///< 1 - s without cancellation, within 4 ulp for |x| <= 80
};
__attribute__((always_inline)) inline Sigmoid sigmoid_and_complement(__m512 x) {
  const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-80.0f), x);
  const __m512 e = exp(_mm512_sub_ps(_mm512_setzero_ps(), bounded));
  const __m512 s = reciprocal(_mm512_add_ps(_mm512_set1_ps(1.0f), e));
  return {s, _mm512_mul_ps(e, s)};
}
__attribute__((always_inline)) inline __m512 sigmoid(__m512 x) { return sigmoid_and_complement(x).value; }

/// The same for results that are rounded to bf16: both within a relative 2^-13.5 (for |x| <= 80), in half the time.
/// e = 2^t with the fraction of t through a polynomial of degree 4 (2^-18.5); the processor's reciprocal is good to
/// 2^-14.
__attribute__((always_inline)) inline Sigmoid coarse_sigmoid_and_complement(__m512 x) {
  const __m512 t = _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-80.0f), x), _mm512_set1_ps(-0x1.715476p+0f));
  const __m512 fraction = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 power = _mm512_set1_ps(0x1.bb7cd2p-7f);
  power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(0x1.aa13f2p-5f));
  power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(0x1.ee798ap-3f));
  power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(0x1.62d166p-1f));
  power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(0x1.00002cp+0f));
  const __m512 e = _mm512_scalef_ps(power, t);  // power * 2^floor(t)
  const __m512 s = _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0f), e));
  return {s, _mm512_mul_ps(e, s)};
}

}  // namespace shoestring::lanes_avx512

#pragma GCC pop_options
