// Number formats as data: DType names a format, the small structs below hold its bits.
//
// Conversions are exact where the target can hold the value, otherwise round to nearest, ties to even. Conversions to
// an 8-bit format saturate to the largest finite value; NaN stays NaN. They are written once, for host and device, so
// that a cast on a CPU and on a GPU agrees bit for bit.
//   e4m3: OCP FP8 E4M3 ("fn": no infinities, one NaN per sign), max 448, least subnormal 2^-9
//   e5m2: OCP FP8 E5M2 (IEEE-like, infinities kept), max 57344, least subnormal 2^-16
//   e8m0: OCP MX scale, 2^(code - 127), code 255 is NaN; no zero, no sign
//   bf16: the upper half of an IEEE single
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#if defined(__CUDACC__)
#define SHOESTRING_HOST_DEVICE __host__ __device__
#else
#define SHOESTRING_HOST_DEVICE
#endif

namespace shoestring {

enum class DType : std::uint8_t { f64, f32, bf16, e4m3, e5m2, e8m0, i64, i32, u16, u8 };

std::int64_t size_bytes(DType dtype);
std::string_view name(DType dtype);
/// Largest finite value of a floating-point format; 0 for integers.
double max_finite(DType dtype);

namespace dtype_bits {

SHOESTRING_HOST_DEVICE inline std::uint32_t of_float(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  return std::bit_cast<std::uint32_t>(value);
#endif
}

SHOESTRING_HOST_DEVICE inline float to_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  return std::bit_cast<float>(bits);
#endif
}

/// Rounds |value| (given as its 31 magnitude bits) to a small float with `mantissa` mantissa bits and exponent bias
/// `bias`; returns the magnitude code, which may overflow past the format's largest one: the caller saturates.
SHOESTRING_HOST_DEVICE inline std::uint32_t round_to_small(std::uint32_t magnitude, int mantissa, int bias) {
  const std::int32_t exponent = static_cast<std::int32_t>(magnitude >> 23) - 127 + bias;
  if (exponent >= 1) {  // normal in the target: drop low bits with round to nearest even, carry runs into the exponent
    const int drop = 23 - mantissa;
    const std::uint32_t rebased = magnitude - (static_cast<std::uint32_t>(127 - bias) << 23);
    const std::uint32_t odd = (rebased >> drop) & 1u;
    return (rebased + ((1u << (drop - 1)) - 1u) + odd) >> drop;
  }
  // Subnormal in the target: the result counts units of 2^(1 - bias - mantissa).
  const int drop = 23 - mantissa + 1 - exponent;
  if (drop > 24) return 0;  // below half of the least subnormal (a tie at exactly half goes to even, which is 0)
  const std::uint32_t significand = (magnitude & 0x7FFFFFu) | 0x800000u;
  const std::uint32_t odd = drop < 32 ? (significand >> drop) & 1u : 0u;
  return (significand + ((1u << (drop - 1)) - 1u) + odd) >> drop;
}

/// The value of a small float's magnitude code; exact.
SHOESTRING_HOST_DEVICE inline float small_to_float(std::uint32_t code, int mantissa, int bias) {
  const std::uint32_t exponent = code >> mantissa;
  const std::uint32_t fraction = code & ((1u << mantissa) - 1u);
  if (exponent == 0) {
    const float unit = to_float(static_cast<std::uint32_t>(127 + 1 - bias - mantissa) << 23);
    return static_cast<float>(fraction) * unit;
  }
  return to_float(((exponent + static_cast<std::uint32_t>(127 - bias)) << 23) | (fraction << (23 - mantissa)));
}

}  // namespace dtype_bits

struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  SHOESTRING_HOST_DEVICE explicit BFloat16(float value) {
    const std::uint32_t raw = dtype_bits::of_float(value);
    if ((raw & 0x7FFFFFFFu) > 0x7F800000u) {
      bits = static_cast<std::uint16_t>((raw >> 16) | 0x40u);  // NaN stays NaN, made quiet
    } else {
      bits = static_cast<std::uint16_t>((raw + 0x7FFFu + ((raw >> 16) & 1u)) >> 16);
    }
  }
  SHOESTRING_HOST_DEVICE operator float() const { return dtype_bits::to_float(static_cast<std::uint32_t>(bits) << 16); }
};

struct E4M3 {
  std::uint8_t bits = 0;

  E4M3() = default;
  SHOESTRING_HOST_DEVICE explicit E4M3(float value) {
    const std::uint32_t raw = dtype_bits::of_float(value);
    const std::uint32_t magnitude = raw & 0x7FFFFFFFu;
    std::uint32_t code = 0x7Fu;  // NaN
    if (magnitude <= 0x7F800000u) {
      code = magnitude >= 0x43E80000u ? 0x7Eu  // 464 and above, infinity included: saturate to 448
                                      : dtype_bits::round_to_small(magnitude, 3, 7);
      if (code > 0x7Eu) code = 0x7Eu;
    }
    bits = static_cast<std::uint8_t>(code | (raw >> 24 & 0x80u));
  }
  SHOESTRING_HOST_DEVICE operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
    const std::uint32_t code = bits & 0x7Fu;
    if (code == 0x7Fu) return dtype_bits::to_float(sign | 0x7FC00000u);
    return dtype_bits::to_float(sign | dtype_bits::of_float(dtype_bits::small_to_float(code, 3, 7)));
  }
};

struct E5M2 {
  std::uint8_t bits = 0;

  E5M2() = default;
  /// Saturates finite values and infinities to the largest finite value, as a cast of data does.
  SHOESTRING_HOST_DEVICE explicit E5M2(float value) {
    const std::uint32_t raw = dtype_bits::of_float(value);
    const std::uint32_t magnitude = raw & 0x7FFFFFFFu;
    std::uint32_t code = 0x7Eu;  // NaN
    if (magnitude <= 0x7F800000u) {
      code = magnitude >= 0x47700000u ? 0x7Bu : dtype_bits::round_to_small(magnitude, 2, 15);
      if (code > 0x7Bu) code = 0x7Bu;
    }
    bits = static_cast<std::uint8_t>(code | (raw >> 24 & 0x80u));
  }
  SHOESTRING_HOST_DEVICE operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
    const std::uint32_t code = bits & 0x7Fu;
    if (code >= 0x7Cu) return dtype_bits::to_float(sign | (code == 0x7Cu ? 0x7F800000u : 0x7FC00000u));
    return dtype_bits::to_float(sign | dtype_bits::of_float(dtype_bits::small_to_float(code, 2, 15)));
  }
};

struct E8M0 {
  std::uint8_t bits = 0;

  E8M0() = default;
  /// The least power of two that is not below `value` (positive, finite): a scale rounds up, so that the payload
  /// cannot overflow. Values past 2^127 become NaN (255); values at or below 2^-127 become 2^-127.
  SHOESTRING_HOST_DEVICE explicit E8M0(float value) {
    const std::uint32_t raw = dtype_bits::of_float(value);
    if (raw >= 0x7F000001u) {  // negative, infinite, NaN or above 2^127
      bits = raw == 0x7F000000u ? 254 : 255;
      return;
    }
    const std::uint32_t exponent = raw >> 23;
    const std::uint32_t fraction = raw & 0x7FFFFFu;
    // A subnormal single is 2^-126 * fraction / 2^23: at or below 2^-127 it rounds up to code 0, above it to code 1.
    const std::uint32_t up = exponent == 0 ? (fraction > 0x400000u ? 1u : 0u) : (fraction != 0 ? 1u : 0u);
    bits = static_cast<std::uint8_t>(exponent + up);
  }
  SHOESTRING_HOST_DEVICE operator float() const {
    if (bits == 255) return dtype_bits::to_float(0x7FC00000u);
    if (bits == 0) return dtype_bits::to_float(0x00400000u);  // 2^-127, a subnormal single
    return dtype_bits::to_float(static_cast<std::uint32_t>(bits) << 23);
  }
};

}  // namespace shoestring
