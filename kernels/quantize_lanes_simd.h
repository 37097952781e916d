// Sixteen elements at a time: the arithmetic of quantize_tile.h in lanes (lanes_simd.h), for vector rows that quantise,
// dequantise, or read what was quantised. Bit for bit that of quantize_tile.h.
//
// Rounding to a small float without a table: add to y a power of two so large that the sum's last bit weighs what the
// small float's last bit weighs in y's binade; the FPU's own rounding then rounds y, ties to even, subnormals included.
//   e = exponent of y, at least the least normal one;  sum = y + 2^(e + 23 - mantissa)
//   code = (low bits of sum) + (e - e_min) * 2^mantissa
#if defined(SHOESTRING_KERNELS_QUANTIZE_LANES_SIMD_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SHOESTRING_KERNELS_QUANTIZE_LANES_SIMD_H_
#undef SHOESTRING_KERNELS_QUANTIZE_LANES_SIMD_H_
#else
#define SHOESTRING_KERNELS_QUANTIZE_LANES_SIMD_H_
#endif

#include <cstdint>

#include "kernels/lanes_simd.h"
#include "kernels/quantize_tile.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::HWY_NAMESPACE::quantize_lanes {

namespace hn = hwy::HWY_NAMESPACE;
using namespace lanes;

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

inline constexpr std::int32_t kMagnitude = static_cast<std::int32_t>(quantize_tile::kMagnitude);
inline constexpr std::int32_t kLargestFinite = static_cast<std::int32_t>(quantize_tile::kLargestFinite);

HWY_INLINE Ints magnitude(Floats x) { return bits_of(x) & broadcast(kMagnitude); }

/// Codes of y >= 0 in the low seven bits of lanes; what stands above them means nothing. y must not round past the
/// largest finite value.
template <class Payload>
HWY_INLINE Ints code_of(Floats y) {
  using C = Constants<Payload>;
  constexpr int kDrop = 23 - C::mantissa;
  constexpr int kLow = -(C::least_exponent << C::mantissa) & 0xFF;  // even: the last bit of a tie stays what it is
  const Ints exponent = greater(bits_of(y) & broadcast(0x7F800000), broadcast(C::least_exponent << 23));
  const Floats magic = from_bits(exponent + broadcast((kDrop << 23) + kLow));
  return bits_of(y + magic) + shift_right<kDrop>(exponent);
}

/// Codes with the signs of x, as whole lanes.
HWY_INLINE Ints with_sign_of(Floats x, Ints code) {
  return (code & broadcast(0x7F)) | (shift_right<24>(bits_of(x)) & broadcast(0x80));
}

/// Codes of x * inverse for finite x and a scale that covers it: nothing can saturate.
template <class Payload>
HWY_INLINE Ints encode(Floats x, Floats inverse) {
  return with_sign_of(x, code_of<Payload>(abs(x) * inverse));
}

/// Counts the elements that are not zero and become it.
template <class Payload>
HWY_INLINE void count_underflow(Floats x, Floats inverse, QuantizeCounts& counts) {
  constexpr auto kZeroUpTo = static_cast<std::int32_t>(Constants<Payload>::format.zero_up_to);
  const Mask small = magnitude(abs(x) * inverse) < broadcast(kZeroUpTo + 1);
  counts.underflowed += count((broadcast(0) < magnitude(x)) & small);
}

/// Codes of x * inverse for any x and scale; counts what is lost. Rare, so not inlined.
template <class Payload>
HWY_NOINLINE Ints encode_any(Floats x, Floats inverse, QuantizeCounts& counts) {
  using C = Constants<Payload>;
  const Ints bits = magnitude(abs(x) * inverse);
  const Mask nan = broadcast(0x7F800000) < bits;
  const Mask over = broadcast(static_cast<std::int32_t>(C::format.saturates_from) - 1) < bits;
  counts.saturated += count(over & !nan);
  counts.non_finite += count(broadcast(kLargestFinite) < magnitude(x));
  count_underflow<Payload>(x, inverse, counts);
  const Floats bounded = lesser(from_bits(bits), broadcast(C::format.max_finite));
  return with_sign_of(x, select(nan, broadcast(C::nan), code_of<Payload>(bounded)));
}

/// Thirty-two lanes, each of which holds a byte.
HWY_INLINE void store_bytes(std::uint8_t* to, Ints first, Ints second) {
#if HWY_TARGET == HWY_AVX2
  const __m256i low = _mm256_packus_epi32(first.part[0].raw, first.part[1].raw);
  const __m256i high = _mm256_packus_epi32(second.part[0].raw, second.part[1].raw);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing stays within halves of registers
  const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), all);
#else
  const hn::Rebind<std::uint8_t, F> byte;
  for (int p = 0; p < kParts; ++p) {
    hn::StoreU(hn::DemoteTo(byte, first.part[p]), byte, to + p * kPart);
    hn::StoreU(hn::DemoteTo(byte, second.part[p]), byte, to + kLanes + p * kPart);
  }
#endif
}

struct Scales {
  Floats scale;
  Floats inverse;
};

/// quantize_tile::scale_of: scales of sixteen tiles from their finite amax bits.
template <class Payload>
HWY_INLINE Scales scales_of(Ints amax, ScaleKind kind) {
  constexpr quantize_tile::Format kFormat = Constants<Payload>::format;
  const Floats one = broadcast(1.0f);
  const Mask some = broadcast(0) < amax;
  if (kind == ScaleKind::f32) {
    const Floats quotient = from_bits(amax) / broadcast(kFormat.max_finite);
    const Floats scale = select(some, greater(quotient, broadcast(0x1p-126f)), one);
    return {scale, one / scale};
  }
  const Ints raised = shift_right<23>(amax + broadcast(0x1FFFFF));
  const Ints exponent = greater(raised - broadcast(kFormat.max_exponent), broadcast(1));
  return {select(some, from_bits(shift_left<23>(exponent)), one),
          select(some, from_bits(shift_left<23>(broadcast(254) - exponent)), one)};
}

// Both formats' fields, shifted, are those of an IEEE half; E4M3's weigh 2^8 less there than they should. F16C and NEON
// widen halves as IEEE has it; Highway's substitute for processors without knows neither NaN nor infinities.
HWY_INLINE hn::Vec<F> value_of(E5M2, hn::Vec<hn::Rebind<std::uint16_t, F>> code) {
  const hn::Rebind<hwy::float16_t, F> half;
  return hn::PromoteTo(F(), hn::BitCast(half, hn::ShiftLeft<8>(code)));
}
HWY_INLINE hn::Vec<F> value_of(E4M3, hn::Vec<hn::Rebind<std::uint16_t, F>> code) {
  const hn::Rebind<hwy::float16_t, F> half;
  const hn::Rebind<std::uint16_t, F> wide;
  const auto top = hn::Set(wide, std::uint16_t{0x80});
  const auto fields = hn::AndNot(top, code);
  const auto nan = hn::And(hn::Add(fields, hn::Set(wide, std::uint16_t{1})), top);  // of 0x7F only; a half's NaN then
  const auto bits = hn::Or(hn::ShiftLeft<7>(hn::Or(fields, nan)), hn::ShiftLeft<8>(hn::And(code, top)));
  return hn::Mul(hn::PromoteTo(F(), hn::BitCast(half, bits)), hn::Set(F(), 256.0f));
}

/// quantize_tile::decode of sixteen codes: value * scale, every NaN the one positive quiet NaN.
template <class Payload>
HWY_INLINE Floats decode(const std::uint8_t* codes, Floats scale) {
  const hn::Rebind<std::uint8_t, F> byte;
  const hn::Rebind<std::uint16_t, F> wide;
  Floats value;
  for (int p = 0; p < kParts; ++p) {
    value.part[p] = value_of(Payload(), hn::PromoteTo(wide, hn::LoadU(byte, codes + p * kPart)));
  }
  value = value * scale;
  return select(is_nan(value), from_bits(broadcast(0x7FC00000)), value);
}
template <class Payload>
HWY_INLINE Floats decode(const std::uint8_t* codes, Floats scale, First lanes) {
  if (HWY_LIKELY(lanes.all())) return decode<Payload>(codes, scale);
  std::uint8_t room[kLanes] = {};
  if (lanes.count > 0) std::memcpy(room, codes, static_cast<std::size_t>(lanes.count));
  return decode<Payload>(room, scale);
}

}  // namespace shoestring::HWY_NAMESPACE::quantize_lanes
HWY_AFTER_NAMESPACE();

#endif
