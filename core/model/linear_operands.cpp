// What a Linear multiplies: its own casts, and room for those that a producer makes.
#include "core/model/adapter.h"
#include "core/model/linear.h"
#include "kernels/quantized_gemm_codes.h"
#include "kernels/reduce.h"

namespace shoestring {

/// `along_rows`: for a sum over rows, along which a device reads its operands (cuBLASLt, gemm_cublaslt.h).
ScaledView Linear::fresh_copy(const QuantizeRequest& request, Granularity granularity, Arena& arena,
                              bool along_rows) const {
  const LinearPrecision& p = options_.precision;
  const Shape& shape = request.x.shape;
  ScaledView copy;
  const bool turned = along_rows && request.x.device.kind != DeviceKind::cpu;
  copy.values =
      turned ? arena.take(request.values, {shape[1], shape[0]}).transposed() : arena.take(request.values, shape);
  const Shape scales =
      p.one_copy() ? Shape{1, 1} : tile_scales_shape(shape[0], shape[1], granularity, request.offsets.host);
  copy.scales = arena.take(p.scale_dtype(), scales);
  copy.granularity = granularity;
  return copy;
}

/// With one scale for the whole tensor one copy serves both directions, but a device reads each along its own.
Linear::Copies Linear::quantize_once(const QuantizeRequest& request, Arena& columns_arena, Arena& rows_arena,
                                     Stream& stream) const {
  QuantizeArgs args{
      .x = request.x, .scale_kind = options_.precision.scales, .counts = request.counts, .stream = stream};
  const bool on_cpu = stream.device().kind == DeviceKind::cpu;
  const bool turned = request.along_rows && !on_cpu;
  const ScaledView first = fresh_copy(request, kPerTensor, request.along_rows ? rows_arena : columns_arena, turned);
  args.row_tiles = first;
  quantize(args);
  if (!turned || !request.along_columns) return {first, first};
  args.row_tiles.values = columns_arena.take(request.values, request.x.shape);
  args.scales_given = true;
  args.counts = nullptr;  // the same codes
  quantize(args);
  return {args.row_tiles, first};
}

Linear::Copies Linear::quantize_into(const QuantizeRequest& request, Arena& columns_arena, Arena& rows_arena,
                                     Stream& stream) const {
  const LinearPrecision& p = options_.precision;
  if (p.one_copy()) return quantize_once(request, columns_arena, rows_arena, stream);
  QuantizeArgs args{.x = request.x,
                    .scale_kind = p.scales,
                    .segments = request.offsets.host,
                    .counts = request.counts,
                    .stream = stream};
  if (request.along_columns) args.row_tiles = fresh_copy(request, p.row_tile, columns_arena, false);
  if (request.along_rows) args.column_tiles = fresh_copy(request, p.column_tile, rows_arena, true);
  quantize(args);
  return {args.row_tiles, args.column_tiles};
}

// ---- operands that come in FP8

bool Linear::takes_input_codes(DeviceKind device) const {
  const LinearPrecision& p = options_.precision;
  return cast_place(p, device).at_producer && p.forward == ProductFormat::fp8 && p.row_tile == kRowTile128 &&
         !keeps_input();
}

bool Linear::takes_gradient_codes(DeviceKind device) const {
  const LinearPrecision& p = options_.precision;
  return cast_place(p, device).at_producer && p.input_gradient == ProductFormat::fp8 && p.row_tile == kRowTile128 &&
         !keeps_gradient() && adapter_ == nullptr && bias.rows == 0;
}

/// Room for what `request` asks for; of its x only the shape is read.
InputCodes Linear::expect(const QuantizeRequest& request, Saved& saved, LayerContext& context) const {
  const LinearPrecision& p = options_.precision;
  InputCodes codes;
  if (request.along_columns) {
    codes.along_columns = gemm_detail::take_row_codes(context.scratch, request.x.shape, request.values, p.row_tile,
                                                      p.scales, context.stream.device().kind);
  }
  if (request.along_rows) codes.along_rows = fresh_copy(request, p.column_tile, saved.arena(), true);
  return codes;
}

InputCodes Linear::expect_input(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets,
                                bool keep) {
  const ConstTensorView x = view_of(static_cast<const void*>(nullptr), options_.precision.activation,
                                    {rows, options_.in}, context.stream.device());
  const bool kept = context.training && keep && quantises_input();
  return saved.record<Record>(this).expected = expect({x, DType::e4m3, true, kept, offsets, nullptr}, saved, context);
}

ScaledView Linear::expect_kept_input(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets) {
  const ConstTensorView x = view_of(static_cast<const void*>(nullptr), options_.precision.activation,
                                    {rows, options_.in}, context.stream.device());
  if (!quantises_input()) return {};
  const ScaledView kept = expect({x, DType::e4m3, false, true, offsets, nullptr}, saved, context).along_rows;
  saved.record<Record>(this).x = kept;
  return kept;
}

InputCodes Linear::expect_gradient(std::int64_t rows, Saved& saved, LayerContext& context, ExpertOffsets offsets) {
  const LinearPrecision& p = options_.precision;
  const ConstTensorView dy =
      view_of(static_cast<const void*>(nullptr), p.activation, {rows, options_.out}, context.stream.device());
  return saved.record<Record>(this).expected =
             expect({dy, p.gradient_values, true, quantises_gradient(), offsets, nullptr}, saved, context);
}

ConstScaledView Linear::plain_operand(ConstTensorView x, ProductFormat format, LayerContext& context) const {
  const DType dtype = dtype_of(format);
  if (x.dtype == dtype) return unscaled(x);
  TensorView converted = context.scratch.take(dtype, x.shape);
  convert_tensor(converted, x, context.stream);
  return unscaled(converted);
}

}  // namespace shoestring
