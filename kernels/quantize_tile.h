// The arithmetic of one tile, written once for host and device: scale from amax, code from element.
// Included by the variants of quantize and by ops that quantise their output (SwiGLU); not for the reader of models.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"
#include "kernels/quantize.h"

namespace shoestring::quantize_tile {

inline constexpr std::uint32_t kMagnitude = 0x7FFFFFFFu;
inline constexpr std::uint32_t kLargestFinite = 0x7F7FFFFFu;  // magnitude bits of the largest finite single

/// What the arithmetic must know of a payload format. Both formats' largest value is 1.75 * 2^max_exponent.
struct Format {
  float max_finite;
  int max_exponent;
  std::uint32_t saturates_from;  ///< least magnitude bits that round past max_finite
  std::uint32_t zero_up_to;      ///< largest magnitude bits that round to zero: half the least subnormal
};
inline constexpr Format kE4M3{448.0f, 8, 0x43E80001u, 0x3A800000u};     // above 464: 464 is a tie that goes to 448
inline constexpr Format kE5M2{57344.0f, 15, 0x47700000u, 0x37000000u};  // from 61440: a tie that would go to 65536

struct Scale {
  float scale;
  float inverse;  ///< 1 / scale, rounded
};

SHOESTRING_HOST_DEVICE inline float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

SHOESTRING_HOST_DEVICE inline float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

/// The scale of a tile whose largest finite magnitude has the bits `amax_bits`.
SHOESTRING_HOST_DEVICE inline Scale scale_of(std::uint32_t amax_bits, ScaleKind kind, Format format) {
  if (amax_bits == 0) return {1.0f, 1.0f};
  if (kind == ScaleKind::f32) {
    constexpr float kLeast = 0x1p-126f;  // keeps the inverse finite, whether or not subnormals are flushed
    const float quotient = divide(dtype_bits::to_float(amax_bits), format.max_finite);
    const float scale = quotient > kLeast ? quotient : kLeast;
    return {scale, divide(1.0f, scale)};
  }
  // amax = m * 2^e against 1.75 * 2^E: the exponent is e - E, plus one when m > 1.75. The sum carries exactly then.
  int exponent = static_cast<int>((amax_bits + 0x1FFFFFu) >> 23) - format.max_exponent;
  if (exponent < 1) exponent = 1;
  return {dtype_bits::to_float(static_cast<std::uint32_t>(exponent) << 23),
          dtype_bits::to_float(static_cast<std::uint32_t>(254 - exponent) << 23)};
}

/// A scale that was chosen before, and its inverse.
SHOESTRING_HOST_DEVICE inline Scale given(float scale) { return {scale, divide(1.0f, scale)}; }

/// Rows that share scales: tile `index` of the tall tiles of a matrix cut at `offsets` [segments + 1].
struct RowTile {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};
SHOESTRING_HOST_DEVICE inline RowTile row_tile(std::int64_t index, std::int64_t tile_rows, const std::int64_t* offsets,
                                               int segments) {
  for (int segment = 0; segment < segments; ++segment) {
    const std::int64_t length = offsets[segment + 1] - offsets[segment];
    const std::int64_t tiles = (length + tile_rows - 1) / tile_rows;
    if (index < tiles) {
      const std::int64_t left = length - index * tile_rows;
      return {offsets[segment] + index * tile_rows, left < tile_rows ? left : tile_rows};
    }
    index -= tiles;
  }
  return {};
}

/// The code of x / scale in `Payload` (E4M3 or E5M2). The sign is x's own: a product keeps the sign of a NaN on one
/// device and drops it on another.
template <class Payload>
SHOESTRING_HOST_DEVICE inline std::uint8_t encode(float x, float inverse) {
  const float y = multiply(x, inverse);
  const std::uint8_t magnitude = Payload(dtype_bits::to_float(dtype_bits::of_float(y) & kMagnitude)).bits;
  return static_cast<std::uint8_t>(magnitude | (dtype_bits::of_float(x) >> 24 & 0x80u));
}

/// value * scale; every NaN comes out as the one positive quiet NaN.
SHOESTRING_HOST_DEVICE inline float decode(float value, float scale) {
  const float x = multiply(value, scale);
  return x == x ? x : dtype_bits::to_float(0x7FC00000u);
}

SHOESTRING_HOST_DEVICE inline bool finite(float x) { return (dtype_bits::of_float(x) & kMagnitude) <= kLargestFinite; }

/// Whether x / scale rounds past the largest finite value; false for NaN.
SHOESTRING_HOST_DEVICE inline bool saturates(float x, float inverse, Format format) {
  const std::uint32_t magnitude = dtype_bits::of_float(multiply(x, inverse)) & kMagnitude;
  return magnitude >= format.saturates_from && magnitude <= 0x7F800000u;
}

/// Whether x is not zero but x / scale rounds to zero.
SHOESTRING_HOST_DEVICE inline bool underflows(float x, float inverse, Format format) {
  const std::uint32_t magnitude = dtype_bits::of_float(multiply(x, inverse)) & kMagnitude;
  return x != 0.0f && magnitude <= format.zero_up_to;
}

}  // namespace shoestring::quantize_tile
