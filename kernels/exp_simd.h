// exp, 2^x and the logistic function of sixteen floats, for the vector rows of ops. Not for the reader of models.
//
// exp(x) = 2^n * e^r, n = round(x log2 e), r = x - n ln 2 in two parts, e^r - 1 - r = r^2 * a polynomial of degree 4
// (minimax on |r| <= ln 2 / 2, error 0.05 ulp). Bound, checked on every float of 2^-10 and more: at most 1 ulp where
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

HWY_INLINE Floats exp(Floats x) {
  // Past these bounds the result is infinite or 0 anyway; a NaN passes both.
  x = lesser(broadcast(89.0f), greater(broadcast(-105.0f), x));
  const Floats shifted = x * broadcast(0x1.715476p+0f) + broadcast(kIntegers);
  const Floats n = shifted - broadcast(kIntegers);
  Floats r = fnma(n, broadcast(0x1.62e4p-1f), x);  // exact: 15 bits of ln 2 times 8 bits of n
  r = fnma(n, broadcast(0x1.7f7d1cp-20f), r);      // the rest of ln 2
  Floats q = broadcast(0x1.6a2350p-10f);
  q = fma(q, r, broadcast(0x1.123a6cp-7f));
  q = fma(q, r, broadcast(0x1.5558f4p-5f));
  q = fma(q, r, broadcast(0x1.555490p-3f));
  q = fma(q, r, broadcast(0x1.fffffcp-2f));
  q = fma(q, r, broadcast(1.0f));
  // 2^n as two powers that are normal: the first product is exact, so that a subnormal is rounded once.
  const Ints exponent = bits_of(shifted) - broadcast(kIntegersBits);
  const Ints half = shift_right<1>(exponent);
  const Floats first_power = from_bits(shift_left<23>(half + broadcast(kExponentBias)));
  const Floats second_power = from_bits(shift_left<23>(exponent - half + broadcast(kExponentBias)));
  return fma(q, r, broadcast(1.0f)) * first_power * second_power;
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
  // The bits of kIntegers but for n are shifted out.
  const Ints power = shift_left<23>(bits_of(shifted)) + broadcast(kExponentBias << 23);
  return drop(x < broadcast(-126.0f), p * from_bits(power));
}

/// s = 1 / (1 + exp(-x)) within 3 ulp for x >= -80; below, the value at -80 (1.8e-35), so the absolute error stays
/// under 2e-35. NaN stays NaN. By division: estimates of a reciprocal differ between processors.
struct Sigmoid {
  Floats value;
  Floats complement;  ///< 1 - s without cancellation, within 4 ulp for |x| <= 80
};
HWY_INLINE Sigmoid sigmoid_and_complement(Floats x) {
  const Floats e = exp(zeros() - greater(broadcast(-80.0f), x));
  const Floats s = broadcast(1.0f) / (broadcast(1.0f) + e);
  return {s, e * s};
}
HWY_INLINE Floats sigmoid(Floats x) { return sigmoid_and_complement(x).value; }

}  // namespace shoestring::HWY_NAMESPACE::lanes
HWY_AFTER_NAMESPACE();

#endif
