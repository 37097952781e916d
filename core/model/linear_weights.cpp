// What the products of a Linear read of its weights: casts, quantised copies and packed panels, made anew after every
// change.
#include <utility>

#include "core/model/adapter.h"
#include "core/model/linear.h"
#include "kernels/base/check.h"
#include "kernels/grouped_gemm.h"

namespace shoestring {
namespace {

/// Segments of equal length, one per expert.
std::vector<std::int64_t> equal_segments(std::int64_t experts, std::int64_t rows) {
  std::vector<std::int64_t> segments;
  for (std::int64_t e = 0; e <= experts; ++e) segments.push_back(e * rows);
  return segments;
}

bool on_cpu(const Stream& stream) { return stream.device().kind == DeviceKind::cpu; }

/// Memory for weights in FP8 and their scales, as the products of a device read them: cuBLASLt wants scales of 128x128
/// along k in lines of a multiple of four.
ScaledView view_weights(Tensor& values, Tensor& scales, const Shape& shape, const Shape& tiles, DType scale_dtype,
                        Granularity granularity, Device device) {
  const auto take = [&](Tensor& tensor, DType dtype, Shape of, std::int64_t line) {
    const std::int64_t columns = of[1];
    of[1] = (columns + line - 1) / line * line;
    if (tensor.empty()) tensor = Tensor(dtype, of, device);
    return tensor.view().slice(1, 0, columns);
  };
  const std::int64_t line = device.kind != DeviceKind::cpu && granularity == kBlock128 ? 4 : 1;
  return {take(values, DType::e4m3, shape, 1), take(scales, scale_dtype, tiles, line), granularity};
}

/// Matrix `index` of a stack of `count`, whose scales restart at each.
ScaledView matrix_of(const ScaledView& stack, std::int64_t count, std::int64_t index) {
  const auto part = [&](const TensorView& all) {
    return all.slice(0, all.shape[0] / count * index, all.shape[0] / count);
  };
  return {part(stack.values), stack.granularity == kPerTensor ? stack.scales : part(stack.scales), stack.granularity};
}

/// Only the shape, the format and the granularity of what was packed.
ConstScaledView without_data(ConstScaledView view) {
  view.values.data = nullptr;
  return view;
}

}  // namespace

void Linear::prepare_adapter(const PrepareContext& context) {
  if (adapter_) adapter_->prepare(context);
}

// A device reads both operands along the sum: for the input gradient a transposed copy of each matrix, with the same
// codes and scales.
void Linear::quantize_weights(const PrepareContext& context) {
  const LinearPrecision& p = options_.precision;
  const std::vector<std::int64_t> experts = equal_segments(stack(), options_.out);
  const std::span<const std::int64_t> segments =
      options_.experts > 0 && !p.one_copy() ? std::span<const std::int64_t>(experts) : std::span<const std::int64_t>();
  const auto fresh = [&](Tensor& values, Tensor& scales, Granularity granularity) {
    return view_weights(values, scales, {weight.rows, weight.columns},
                        tile_scales_shape(weight.rows, weight.columns, granularity, segments), p.scale_dtype(),
                        granularity, context.stream.device());
  };
  QuantizeArgs args{.x = weight.value,
                    .row_tiles = fp8_ = fp8_backward_ = fresh(values_, scales_, p.weight_tile),
                    .scale_kind = p.scales,
                    .segments = segments,
                    .counts = context.counts,
                    .stream = context.stream};
  const bool finer = p.weight_tile == kRowTile32;
  gradient_.turned = !finer && context.backward && p.input_gradient == ProductFormat::fp8 && !on_cpu(context.stream);
  if (finer && context.backward) {
    args.column_tiles = fp8_backward_ = fresh(column_values_, column_scales_, kColumnTile32);
  }
  if (!gradient_.turned || p.one_copy()) quantize(args);
  if (!gradient_.turned) return;
  const Shape tiles = scales_shape(options_.in, options_.out, p.weight_tile);
  fp8_backward_ =
      view_weights(column_values_, p.one_copy() ? scales_ : column_scales_, {stack() * options_.in, options_.out},
                   p.one_copy() ? tiles : Shape{stack() * tiles[0], tiles[1]}, p.scale_dtype(), p.weight_tile,
                   context.stream.device());
  args.segments = {};
  for (std::int64_t e = 0; e < stack(); ++e) {
    const ScaledView turned = matrix_of(fp8_backward_, stack(), e).transposed();
    args.x = weight.value.slice(0, e * options_.out, options_.out);
    args.row_tiles = p.one_copy() ? turned : matrix_of(fp8_, stack(), e);
    args.scales_given = p.one_copy();
    if (p.one_copy()) {
      args.counts = nullptr;  // the same codes
    } else {
      args.column_tiles = turned;
    }
    quantize(args);
  }
}

void Linear::prepare(const PrepareContext& context) {
  prepare_adapter(context);
  const LinearPrecision& p = options_.precision;
  Arena::Scope scope(context.scratch);
  if (uses(ProductFormat::fp8)) quantize_weights(context);
  TensorView plain_bf16;
  if (uses(ProductFormat::bf16)) {
    const Shape shape{weight.rows, weight.columns};
    const bool packs = on_cpu(context.stream);
    if (!packs && rounded_.empty()) rounded_ = Tensor(DType::bf16, shape, context.stream.device());
    plain_bf16 = packs ? context.scratch.take(DType::bf16, shape) : rounded_.view();
    convert_tensor(plain_bf16, weight.value, context.stream);
  }
  prepare_direction(p.forward, false, plain_bf16, forward_, context.stream);
  if (context.backward) prepare_direction(p.input_gradient, true, plain_bf16, gradient_, context.stream);
}

void Linear::prepare_direction(ProductFormat format, bool transposed, ConstTensorView plain_bf16, Direction& direction,
                               Stream& stream) {
  const LinearPrecision& p = options_.precision;
  ConstScaledView b = unscaled(ConstTensorView(weight.value));
  if (format == ProductFormat::bf16) b = unscaled(plain_bf16);
  if (format == ProductFormat::fp8) b = transposed ? fp8_backward_ : fp8_;
  direction.b = b;
  if (format == ProductFormat::f64) return;  // the reference reads the master weights
  if (!on_cpu(stream)) return;               // its products read b as it is
  if (options_.experts > 0) {
    pack_experts(b, options_.experts, transposed, p.power_of_two_scales(), direction.packed, stream);
  } else {
    pack(transposed ? b.transposed() : b, p.power_of_two_scales(), direction.packed, stream);
  }
  if (format == ProductFormat::bf16) direction.b = without_data(b);
}

}  // namespace shoestring
