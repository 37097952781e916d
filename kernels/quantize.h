// Low precision with fine scales: x ~ value * scale, one scale per tile, and back.
//
// For every tile of x (DeepSeek-V3, arXiv 2412.19437, section 3.3; OCP MX for 1x32):
//   amax  = max |x| over the finite elements of the tile
//   scale = amax / max_finite(format)          (a tile of zeros: 1), at least 2^-126
//   value = round_to_format(x * (1 / scale))   (nearest, ties to even, saturating)
// Both divisions and the product are IEEE single precision, rounded to nearest, on every device: the codes and scales
// of all variants agree bit for bit. kernels/quantize_tile.h holds that arithmetic.
//
// ScaleKind::power_of_two and ::e8m0 take the least power of two that is not below amax / max_finite, and the payload
// is rounded with that scale.
//
// NaN stays NaN of its sign (dequantised: the positive quiet NaN); an infinity becomes the largest finite value of its
// sign and counts as saturated. Neither enters amax.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/base/tensor.h"
#include "kernels/base/variant.h"

namespace shoestring {

enum class ScaleKind : std::uint8_t {
  f32,           ///< any single
  power_of_two,  ///< a power of two, stored as f32
  e8m0,          ///< a power of two, stored as its exponent (DType::e8m0)
};

/// What quantisation lost. Every call adds to it, for each code it writes; the caller clears it.
/// A CUDA stream needs memory the device can write (device or pinned); it is complete after the stream is.
struct QuantizeCounts {
  std::int64_t elements = 0;     ///< codes written; a second layout of the same codes is not counted
  std::int64_t saturated = 0;    ///< x / scale rounded past the largest finite value (given scales, infinities)
  std::int64_t underflowed = 0;  ///< x was not zero, its code is
  std::int64_t non_finite = 0;   ///< x was NaN or infinite
  float amax = 0;                ///< largest finite |x|
};

/// x [rows, columns] -> one or two scaled copies from one read of x. Overwrites the outputs. At least one is present.
struct QuantizeArgs {
  ConstTensorView x{};  ///< f32 or bf16 [rows, columns], any strides
  /// Values e4m3 or e5m2 [rows, columns], any strides. Granularity kRowTile128, kRowTile32, kBlock128 or kPerTensor.
  ScaledView row_tiles{};
  /// The copy whose scales run down the rows, for weight gradients: kColumnTile128, kColumnTile32; or kBlock128, when
  /// row_tiles is kBlock128 too, for a second layout of the same values. Values [rows, columns]: a transposed copy
  /// (contiguous along the rows) is asked for by strides, as `Tensor(e4m3, {columns, rows})` seen through transposed().
  ScaledView column_tiles{};
  ScaleKind scale_kind = ScaleKind::f32;
  /// Row offsets [segments + 1], 0 first and `rows` last, not decreasing: tiles taller than one row restart at each
  /// (ragged expert segments, stacked weights). Empty: one segment. Host memory.
  std::span<const std::int64_t> segments{};
  /// Use the scales that stand in the outputs (positive; delayed scaling) instead of computing them.
  bool scales_given = false;
  QuantizeCounts* counts = nullptr;  ///< optional
  Stream& stream;
};

/// Shapes of scales (f32, or e8m0 with ScaleKind::e8m0; any strides): `tile_scales_shape` of the output's granularity.
void quantize(const QuantizeArgs& args);
std::span<const Variant<QuantizeArgs>> quantize_variants();

/// y [rows, columns] = value * scale, the product rounded to f32, then once to y's format. Overwrites y.
struct DequantizeArgs {
  TensorView y{};                            ///< f32 or bf16 [rows, columns], any strides
  ConstScaledView x{};                       ///< as quantize writes it
  std::span<const std::int64_t> segments{};  ///< as for quantize
  Stream& stream;
};
void dequantize(const DequantizeArgs& args);
std::span<const Variant<DequantizeArgs>> dequantize_variants();

/// [tile rows, tile columns] of the scales of a [rows, columns] matrix whose tall tiles restart at every segment:
/// tile rows = sum over segments of ceil(length / granularity.rows).
Shape tile_scales_shape(std::int64_t rows, std::int64_t columns, Granularity granularity,
                        std::span<const std::int64_t> segments = {});

/// Scales of 32 rows, the column twin of kRowTile32.
inline constexpr Granularity kColumnTile32{32, 1};

}  // namespace shoestring
