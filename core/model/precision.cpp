#include "core/model/precision.h"

#include "kernels/grouped_gemm.h"

namespace shoestring {
namespace {

ProductFormat plain_format(PrecisionPolicy policy) {
  switch (policy) {
    case PrecisionPolicy::fp64: return ProductFormat::f64;
    case PrecisionPolicy::fp32: return ProductFormat::f32;
    default: return ProductFormat::bf16;
  }
}

ProductFormat overridden(LinearFormat format, ProductFormat policy) {
  switch (format) {
    case LinearFormat::policy: return policy;
    case LinearFormat::bf16: return ProductFormat::bf16;
    case LinearFormat::fp32: return ProductFormat::f32;
  }
  return policy;
}

}  // namespace

DType dtype_of(ProductFormat format) {
  switch (format) {
    case ProductFormat::f64: return DType::f64;
    case ProductFormat::f32: return DType::f32;
    case ProductFormat::bf16: return DType::bf16;
    case ProductFormat::fp8: return DType::e4m3;
  }
  return DType::f32;
}

bool low_precision(const PrecisionSpec& spec) { return spec.policy >= PrecisionPolicy::fp8_block; }

DType activation_dtype(const PrecisionSpec& spec) {
  switch (spec.policy) {
    case PrecisionPolicy::fp64: return DType::f64;
    case PrecisionPolicy::fp32: return DType::f32;
    default: return DType::bf16;
  }
}

DType master_dtype(const PrecisionSpec& spec) { return spec.policy == PrecisionPolicy::fp64 ? DType::f64 : DType::f32; }

CastPlace cast_place(const LinearPrecision& precision, DeviceKind device) {
  if (device == DeviceKind::cpu) return {};
  const auto fp8 = [](ProductFormat format) { return format == ProductFormat::fp8; };
  const bool any = fp8(precision.forward) || fp8(precision.input_gradient) || fp8(precision.weight_gradient);
  // The fused ops write tiles; one scale for a whole tensor is known only when all of it is.
  return {!precision.one_copy(), any ? kGroupRows : 1};
}

LinearPrecision exempt_precision(const PrecisionSpec& spec) {
  LinearPrecision precision;
  precision.activation = activation_dtype(spec);
  precision.master = master_dtype(spec);
  precision.forward = precision.input_gradient = precision.weight_gradient = plain_format(spec.policy);
  return precision;
}

LinearPrecision covered_precision(const PrecisionSpec& spec) {
  LinearPrecision precision = exempt_precision(spec);
  if (!low_precision(spec)) return precision;
  precision.forward = overridden(spec.forward, ProductFormat::fp8);
  precision.input_gradient = overridden(spec.input_gradient, ProductFormat::fp8);
  precision.weight_gradient = overridden(spec.weight_gradient, ProductFormat::fp8);
  precision.scales = spec.scales == ScaleFormat::f32 ? ScaleKind::f32 : ScaleKind::power_of_two;
  precision.gradient_values = spec.gradients_e5m2 ? DType::e5m2 : DType::e4m3;
  precision.cache_fp8 = spec.cache_fp8;
  if (spec.policy == PrecisionPolicy::fp8_tensor) {
    precision.row_tile = precision.column_tile = precision.weight_tile = kPerTensor;
  } else if (spec.policy == PrecisionPolicy::mxfp8) {
    precision.row_tile = precision.weight_tile = kRowTile32;
    precision.column_tile = kColumnTile32;
    precision.scales = ScaleKind::e8m0;
  }
  return precision;
}

}  // namespace shoestring
