// Which number format each tensor and each product of a model has, from the recipe's [precision].
#pragma once

#include <cstdint>

#include "core/recipe/recipe.h"
#include "kernels/base/tensor.h"
#include "kernels/quantize.h"

namespace shoestring {

/// Format of one matrix product's operands; sums are FP32 (f64 for f64).
enum class ProductFormat : std::uint8_t { f64, f32, bf16, fp8 };

/// Format of the operands' values.
DType dtype_of(ProductFormat format);

/// The formats of one Linear.
struct LinearPrecision {
  DType activation = DType::f32;  ///< of the tensors it reads and writes
  DType master = DType::f32;      ///< of the weights and their gradients
  ProductFormat forward = ProductFormat::f32;
  ProductFormat input_gradient = ProductFormat::f32;
  ProductFormat weight_gradient = ProductFormat::f32;

  // Of FP8 products.
  ScaleKind scales = ScaleKind::f32;
  DType gradient_values = DType::e4m3;       ///< activation gradients: e4m3 or e5m2
  Granularity row_tile = kRowTile128;        ///< activations along k
  Granularity column_tile = kColumnTile128;  ///< activations along tokens
  Granularity weight_tile = kBlock128;
  bool cache_fp8 = true;  ///< keep the weight gradient's operand in FP8 rather than plain

  /// One quantised copy serves both directions (one scale for the whole tensor).
  bool one_copy() const { return row_tile == kPerTensor; }
  bool power_of_two_scales() const { return scales != ScaleKind::f32; }
  DType scale_dtype() const { return scales == ScaleKind::e8m0 ? DType::e8m0 : DType::f32; }
};

/// Where the operands of a Linear's FP8 products are cast, and how the rows of experts lie for them.
struct CastPlace {
  /// Norms, activations and gathers write the codes that the next products read. Elsewhere a product casts the rows
  /// that it multiplies as it packs them: what CPUs do, whose codes are never written down.
  bool at_producer = false;
  std::int64_t expert_rows = 1;  ///< each expert's rows begin and end at a multiple of it
};
/// The one place where this is decided.
CastPlace cast_place(const LinearPrecision& precision, DeviceKind device);

/// Linears that the policy covers.
LinearPrecision covered_precision(const PrecisionSpec& spec);
/// Linears that a low-precision policy leaves in BF16: the output head, the join of multi-token prediction.
LinearPrecision exempt_precision(const PrecisionSpec& spec);

/// Format of activations between layers.
DType activation_dtype(const PrecisionSpec& spec);
/// Format of master weights, gradients, statistics: f32, in fp64 runs f64.
DType master_dtype(const PrecisionSpec& spec);
bool low_precision(const PrecisionSpec& spec);

}  // namespace shoestring
