// exp, 2^x and the logistic function of sixteen floats, for the vector rows of ops. Not for the reader of models.
//
// exp(x) = 2^n * e^r, n = round(x log2 e), r = x - n ln 2 in two parts, e^r - 1 - r = r^2 * a polynomial of degree 4
// (minimax on |r| <= ln 2 / 2, error 0.05 ulp). Bound, checked on every float: at most 1 ulp where
// the result is normal, less than the least subnormal below. exp(-inf) = 0, exp(inf) = inf, NaN stays NaN, exp(0) = 1
// exactly.
#if defined(SHOESTRING_KERNELS_EXP_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_KERNELS_EXP_SIMD_H_
#undef SHOESTRING_KERNELS_EXP_SIMD_H_
#else
#define SHOESTRING_KERNELS_EXP_SIMD_H_
#endif

#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::HWY_NAMESPACE::lanes {

/// An integer n from -2^22 to 2^22 is the lowest bits of the float kIntegers + n; adding and taking away kIntegers
/// rounds to the nearest integer, ties to even.
inline constexpr float kIntegers = 0x1.8p23f;
inline constexpr std::int32_t kIntegersBits = 0x4B400000;
inline constexpr std::int32_t kExponentBias = 127;

/// x 2^n, rounded once, for x in [0.5, 2] and n = shifted - kIntegers in [-152, 128].
HWY_INLINE Floats times_power(Floats x, Floats shifted) {
#if HWY_TARGET == HWY_AVX3
  // The form without a mask begins at a value that GCC 12 takes for uninitialised (GCC bug 105593); code is the same.
  constexpr __mmask16 kAll = 0xFFFF;
  x.part[0].raw = _mm512_maskz_scalef_ps(kAll, x.part[0].raw, (shifted - broadcast(kIntegers)).part[0].raw);
  return x;
#else
  // As two powers that are normal: the first product is exact, so that a subnormal is rounded once.
  const Ints exponent = bits_of(shifted) - broadcast(kIntegersBits);
  const Ints half = shift_right<1>(exponent);
  const Floats first_power = from_bits(shift_left<23>(half + broadcast(kExponentBias)));
  const Floats second_power = from_bits(shift_left<23>(exponent - half + broadcast(kExponentBias)));
  return x * first_power * second_power;
#endif
}

/// exp(sign x) for sign x in [-105, 89], or NaN; sign is 1 or -1.
template <int sign>
HWY_INLINE Floats exp_within(Floats x) {
  constexpr float s = sign;
  const Floats shifted = x * broadcast(s * 0x1.715476p+0f) + broadcast(kIntegers);
  const Floats n = shifted - broadcast(kIntegers);
  Floats r = fma(n, broadcast(-s * 0x1.62e4p-1f), x);  // sign r; exact: 15 bits of ln 2 times 8 bits of n
  r = fma(n, broadcast(-s * 0x1.7f7d1cp-20f), r);      // the rest of ln 2
  Floats q = broadcast(0x1.6a2350p-10f);
  q = fma(q, r, broadcast(s * 0x1.123a6cp-7f));
  q = fma(q, r, broadcast(0x1.5558f4p-5f));
  q = fma(q, r, broadcast(s * 0x1.555490p-3f));
  q = fma(q, r, broadcast(0x1.fffffcp-2f));
  q = fma(q, r, broadcast(s));
  return times_power(fma(q, r, broadcast(1.0f)), shifted);
}

HWY_INLINE Floats exp(Floats x) {
  // Past these bounds the result is infinite or 0 anyway; a NaN passes both.
  return exp_within<1>(lesser(broadcast(89.0f), greater(broadcast(-105.0f), x)));
}

/// x 2^n for n = shifted - kIntegers in [-126, 127].
HWY_INLINE Floats times_normal_power(Floats x, Floats shifted) {
#if HWY_TARGET == HWY_AVX3
  return times_power(x, shifted);
#else
  // The bits of kIntegers but for n are shifted out.
  return x * from_bits(shift_left<23>(bits_of(shifted)) + broadcast(kExponentBias << 23));
#endif
}

/// 2^x within 3 ulp for x in [-126, 127]; 0 below, 2^127 above, NaN stays NaN, 2^0 = 1 exactly.
/// 2^x = 2^n 2^r with n = round(x) and a polynomial in r (minimax, 1.4e-7).
HWY_INLINE Floats exp2(Floats x) {
  const Floats bounded = lesser(broadcast(127.0f), x);
  const Floats shifted = bounded + broadcast(kIntegers);
  const Floats r = bounded - (shifted - broadcast(kIntegers));
  Floats p = broadcast(0x1.5c08e0p-10f);
  p = fma(p, r, broadcast(0x1.3d0c52p-7f));
  p = fma(p, r, broadcast(0x1.c6b6e6p-5f));
  p = fma(p, r, broadcast(0x1.ebf918p-3f));
  p = fma(p, r, broadcast(0x1.62e428p-1f));
  p = fma(p, r, broadcast(1.0f));
  return drop(x < broadcast(-126.0f), times_normal_power(p, shifted));
}

/// 1 / d for d in [1, 2^120] within a relative 2^-14: what is left of 2^254 when d's bits are taken away is
/// 1 / d (1 + e) with e in [0, 1/8], and a polynomial of degree 2 takes e out. NaN stays NaN. Not the processor's own
/// estimate: those differ between processors.
HWY_INLINE Floats coarse_reciprocal(Floats d) {
  const Floats guess = from_bits(broadcast(2 * kExponentBias << 23) - bits_of(d));
  const Floats rest = fnma(d, guess, broadcast(1.0f));  // -e
  const Floats p =
      fma(fma(broadcast(0x1.abf7e8p-1f), rest, broadcast(0x1.fc3662p-1f)), rest, broadcast(0x1.fff950p-1f));
  return guess * p;
}
/// 1 / d for d in [1, 2^120] within 1.5 ulp: a Newton step more.
HWY_INLINE Floats reciprocal(Floats d) {
  const Floats guess = coarse_reciprocal(d);
  return fma(guess, fnma(d, guess, broadcast(1.0f)), guess);
}

/// s = 1 / (1 + exp(-x)) within 3 ulp for x >= -80; below, the value at -80 (1.8e-35), so the absolute error stays
/// under 2e-35. NaN stays NaN.
struct Sigmoid {
  Floats value;
  Floats complement;  ///< 1 - s without cancellation, within 4 ulp for |x| <= 80
};
HWY_INLINE Sigmoid sigmoid_and_complement(Floats x) {
  const Floats e = exp_within<-1>(lesser(broadcast(105.0f), greater(broadcast(-80.0f), x)));
  const Floats s = reciprocal(broadcast(1.0f) + e);
  return {s, e * s};
}
HWY_INLINE Floats sigmoid(Floats x) { return sigmoid_and_complement(x).value; }

/// The same for results that are rounded to bf16: both within a relative 2^-13.5 for |x| <= 80.
/// e = 2^t, t = -x log2 e, through a polynomial of degree 4 in t - round(t) (minimax, 2^-18.5).
HWY_INLINE Sigmoid coarse_sigmoid_and_complement(Floats x) {
  const Floats t = greater(broadcast(-126.0f), greater(broadcast(-80.0f), x) * broadcast(-0x1.715476p+0f));
  const Floats shifted = t + broadcast(kIntegers);
  const Floats r = t - (shifted - broadcast(kIntegers));
  Floats p = broadcast(0x1.3997d6p-7f);
  p = fma(p, r, broadcast(0x1.ca1440p-5f));
  p = fma(p, r, broadcast(0x1.ec06dap-3f));
  p = fma(p, r, broadcast(0x1.62e0dcp-1f));
  p = fma(p, r, broadcast(0x1.ffffe8p-1f));
  const Floats e = times_normal_power(p, shifted);
  const Floats s = coarse_reciprocal(broadcast(1.0f) + e);
  return {s, e * s};
}

}  // namespace shoestring::HWY_NAMESPACE::lanes
HWY_AFTER_NAMESPACE();

#endif
