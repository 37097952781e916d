#include "core/model/linear.h"

#include <utility>

#include "core/model/adapter.h"
#include "kernels/base/check.h"
#include "kernels/fill.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantized_gemm.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"

namespace shoestring {

void append_slice(std::vector<ParameterSlice>& slices, std::string name, std::int64_t rows, std::int64_t columns) {
  const std::int64_t begin = slices.empty() ? 0 : slices.back().begin + slices.back().rows;
  slices.push_back({std::move(name), begin, rows, {rows, columns}});
}

void append_vector(std::vector<ParameterSlice>& slices, std::string name, std::int64_t rows) {
  const std::int64_t begin = slices.empty() ? 0 : slices.back().begin + slices.back().rows;
  slices.push_back({std::move(name), begin, rows, {rows}});
}

Linear::Linear(LinearOptions options) : options_(std::move(options)) {
  weight.role = ParameterRole::matrix;
  weight.rows = stack() * options_.out;
  weight.columns = options_.in;
  weight.slices = options_.slices;
  weight.init_std = options_.init_std;
  weight.experts = {options_.first_expert, options_.experts};
  weight.overwrites_first = true;
  std::int64_t covered = 0;
  for (const ParameterSlice& slice : weight.slices) covered += slice.rows;
  check(covered == weight.rows, "a Linear of {} rows is named in {}", weight.rows, covered);
  if (options_.bias_slices.empty()) return;
  bias.role = ParameterRole::vector;
  bias.rows = options_.out;
  bias.columns = 1;
  bias.slices = options_.bias_slices;
}

Linear::~Linear() = default;

void Linear::adapt(const LoraSpec& lora) {
  check(adapter_ == nullptr, "a Linear takes one adapter");
  adapter_ = Adapter::of(options_, lora);
  weight.adapter = adapter_.get();
}

std::vector<Parameter*> Linear::factors() { return adapter_ ? adapter_->factors() : std::vector<Parameter*>(); }

std::vector<Parameter*> Linear::parameters() {
  if (bias.rows == 0) return {&weight};
  return {&weight, &bias};
}

bool Linear::uses(ProductFormat format) const {
  const LinearPrecision& p = options_.precision;
  return p.forward == format || p.input_gradient == format;
}

bool Linear::quantises_input() const { return quantises_gradient() && options_.precision.cache_fp8; }

bool Linear::quantises_gradient() const {
  return !weight.frozen && options_.precision.weight_gradient == ProductFormat::fp8;
}

bool Linear::keeps_input() const { return adapter_ != nullptr || (!weight.frozen && !quantises_input()); }

bool Linear::keeps_gradient() const { return !weight.frozen && !quantises_gradient(); }

// ---- products

void Linear::multiply(TensorView c, const ConstScaledView& a, const Direction& direction, bool transposed,
                      bool accumulate, ExpertOffsets offsets, LayerContext& context) const {
  if (c.device.kind != DeviceKind::cpu && a.values.dtype == DType::f32 && c.dtype != DType::f32) {
    // cuBLASLt makes FP32 of FP32 (the router's input gradient); the room is what a CPU packs operands in.
    Arena::Scope scope(context.scratch);
    const TensorView wide = context.scratch.take(DType::f32, c.shape);
    multiply(wide, a, direction, transposed, false, offsets, context);
    return accumulate ? axpy(c, 1, wide, context.stream) : convert(c, wide, context.stream);
  }
  const PackedMatrix* packed = direction.packed.empty() ? nullptr : &direction.packed;
  const bool turns = transposed && !direction.turned;
  if (options_.experts > 0) {
    grouped_gemm({.c = c,
                  .a = a,
                  .b = direction.b,
                  .b_transposed = turns,
                  .offsets = offsets.host,
                  .device_offsets = offsets.there,
                  .accumulate = accumulate,
                  .power_of_two_scales = options_.precision.power_of_two_scales(),
                  .packed_b = packed,
                  .scratch = context.scratch,
                  .stream = context.stream});
    return;
  }
  ConstTensorView bias_view;
  if (!transposed && bias.rows > 0) bias_view = bias.value.reshaped({bias.rows});
  gemm({.c = c,
        .a = a,
        .b = turns ? direction.b.transposed() : direction.b,
        .accumulate = accumulate,
        .power_of_two_scales = options_.precision.power_of_two_scales(),
        .packed_b = packed,
        .bias = bias_view,
        .scratch = context.scratch,
        .stream = context.stream});
}

ConstScaledView Linear::product_of(TensorView c, const QuantizeRequest& request, const InputCodes& expected,
                                   ProductFormat format, const Direction& direction, bool transposed, bool accumulate,
                                   Saved& saved, LayerContext& context) const {
  const LinearPrecision& p = options_.precision;
  if (!expected.along_columns.values.empty()) {
    multiply(c, expected.along_columns, direction, transposed, accumulate, request.offsets, context);
    return expected.along_rows;
  }
  if (!request.along_columns || p.one_copy()) {
    Copies copies;
    if (request.along_columns || request.along_rows) {
      copies = quantize_into(request, context.scratch, saved.arena(), context.stream);
    }
    const ConstScaledView a = request.along_columns ? copies.along_columns : plain_operand(request.x, format, context);
    multiply(c, a, direction, transposed, accumulate, request.offsets, context);
    return copies.along_rows;
  }
  ScaledView along_rows;
  if (request.along_rows) along_rows = fresh_copy(request, p.column_tile, saved.arena(), true);
  ConstTensorView bias_view;
  if (!transposed && bias.rows > 0) bias_view = bias.value.reshaped({bias.rows});
  quantized_gemm({.c = c,
                  .x = request.x,
                  .values = request.values,
                  .row_tile = p.row_tile,
                  .scale_kind = p.scales,
                  .column_tiles = along_rows,
                  .b = direction.b,
                  .b_transposed = transposed && !direction.turned,
                  .offsets = request.offsets.host,
                  .device_offsets = request.offsets.there,
                  .accumulate = accumulate,
                  .packed_b = direction.packed.empty() ? nullptr : &direction.packed,
                  .bias = bias_view,
                  .counts = request.counts,
                  .scratch = context.scratch,
                  .stream = context.stream});
  return along_rows;
}

void Linear::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, ExpertOffsets offsets,
                     bool keep) {
  const LinearPrecision& p = options_.precision;
  const bool kept_in_fp8 = context.training && keep && quantises_input();
  const QuantizeRequest request{x,           DType::e4m3, p.forward == ProductFormat::fp8,
                                kept_in_fp8, offsets,     context.activation_counts()};
  const InputCodes expected = std::exchange(saved.record<Record>(this).expected, {});
  {
    Arena::Scope scope(context.scratch);
    const ConstScaledView along_rows =
        product_of(y, request, expected, p.forward, forward_, false, false, saved, context);
    if (context.training && keep) saved.record<Record>(this).x = kept_in_fp8 ? along_rows : unscaled(x);
  }
  if (adapter_) adapter_->forward(x, y, saved, context, offsets, keep);
}

void Linear::keep_input(ConstTensorView x, Saved& saved, LayerContext& context, ExpertOffsets offsets) {
  Record& record = saved.record<Record>(this);
  if (adapter_) adapter_->keep_input(x, saved, context, offsets);
  if (!quantises_input()) {
    record.x = unscaled(x);
    return;
  }
  // Counted when it was quantised in forward.
  record.x =
      quantize_into({x, DType::e4m3, false, true, offsets, nullptr}, context.scratch, saved.arena(), context.stream)
          .along_rows;
}

void Linear::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context,
                            ExpertOffsets offsets, bool accumulate) {
  const LinearPrecision& p = options_.precision;
  Record& record = saved.record<Record>(this);
  const bool along_rows = quantises_gradient();
  if (bias.rows > 0 && !bias.frozen) sum_bias(dy, record, saved, context);
  const QuantizeRequest request{dy,         p.gradient_values, p.input_gradient == ProductFormat::fp8,
                                along_rows, offsets,           context.gradient_counts()};
  {
    Arena::Scope scope(context.scratch);
    const ConstScaledView kept = product_of(dx, request, std::exchange(record.expected, {}), p.input_gradient,
                                            gradient_, true, accumulate, saved, context);
    record.dy = along_rows ? kept : unscaled(dy);
  }
  if (adapter_) adapter_->backward_input(dy, dx, saved, context, offsets);
}

void Linear::sum_bias(ConstTensorView dy, Record& record, Saved& saved, LayerContext& context) {
  // The gain gradient of an RMSNorm whose x and rstd are 1 is the sum over rows, in that op's fixed order.
  Arena::Scope scope(context.scratch);
  const auto ones = [&](DType dtype, std::int64_t count) {
    const TensorView view = context.scratch.take(dtype, {count});
    fill(view, 1.0, context.stream);
    return view;
  };
  const std::int64_t rows = dy.shape[0];
  TensorView row = ones(dy.dtype, options_.out);
  row.shape = {rows, options_.out};
  row.strides = {0, 1};
  record.dbias = saved.take(options_.precision.master, {options_.out});
  fill(record.dbias, 0.0, context.stream);
  rms_norm_weight_gradient({.dgamma = record.dbias,
                            .dy = dy,
                            .x = row,
                            .rstd = ones(options_.precision.master, rows),
                            .stream = context.stream});
}

void Linear::backward_weight(Saved& saved, LayerContext& context, ExpertOffsets offsets) {
  if (adapter_) adapter_->backward_weight(saved, context, offsets);
  if (weight.frozen) return;
  Record& record = saved.record<Record>(this);
  if (bias.rows > 0) axpy(bias.grad.reshaped({bias.rows}), 1.0, record.dbias, context.stream);
  Arena::Scope scope(context.scratch);
  const ProductFormat format = options_.precision.weight_gradient;
  if (format != ProductFormat::fp8) {
    weight_product(plain_operand(record.x.values, format, context), plain_operand(record.dy.values, format, context),
                   context, offsets);
    return;
  }
  ConstScaledView x = record.x;
  if (!x.scaled()) {
    x = quantize_into({x.values, DType::e4m3, false, true, offsets, nullptr}, context.scratch, context.scratch,
                      context.stream)
            .along_rows;
  }
  weight_product(x, record.dy, context, offsets);
}

void Linear::backward_weight_of(ConstTensorView x, ConstTensorView dy, LayerContext& context, ExpertOffsets offsets) {
  if (weight.frozen) return;
  const ProductFormat format = options_.precision.weight_gradient;
  check(format != ProductFormat::fp8, "an FP8 weight gradient reads what was kept");
  Arena::Scope scope(context.scratch);
  weight_product(plain_operand(x, format, context), plain_operand(dy, format, context), context, offsets);
}

void Linear::weight_product(const ConstScaledView& x, const ConstScaledView& dy, LayerContext& context,
                            ExpertOffsets offsets) {
  const bool accumulate = !std::exchange(weight.grad_is_stale, false);
  if (options_.experts > 0) return expert_weight_product(x, dy, accumulate, context, offsets);
  gemm({.c = weight.grad,
        .a = dy.transposed(),
        .b = x.transposed(),
        .accumulate = accumulate,
        .power_of_two_scales = options_.precision.power_of_two_scales(),
        .scratch = context.scratch,
        .stream = context.stream});
}

void Linear::expert_weight_product(const ConstScaledView& x, const ConstScaledView& dy, bool accumulate,
                                   LayerContext& context, ExpertOffsets offsets) {
  const auto multiply = [&](TensorView c, const ConstScaledView& a, const ConstScaledView& b, bool add,
                            ExpertOffsets groups) {
    grouped_weight_gemm({.c = c,
                         .a = a,
                         .b = b,
                         .offsets = groups.host,
                         .device_offsets = groups.there,
                         .accumulate = add,
                         .power_of_two_scales = options_.precision.power_of_two_scales(),
                         .scratch = context.scratch,
                         .stream = context.stream});
  };
  if (options_.sources == 1) return multiply(weight.grad, dy, x, accumulate, offsets);
  if (!weight.grads_by_source.empty()) return multiply(weight.grads_by_source, dy, x, accumulate, offsets);
  for (std::int64_t source = 0; source < options_.sources; ++source) {
    const std::int64_t first = source * options_.experts;
    const std::span<const std::int64_t> all =
        offsets.host.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(options_.experts) + 1);
    std::vector<std::int64_t> own(all.begin(), all.end());
    for (std::int64_t& offset : own) offset -= all.front();
    const auto part = [&](ConstScaledView operand) {
      operand.values = operand.values.slice(0, all.front(), own.back());
      if (!operand.scaled() || operand.granularity.rows == 0) return operand;
      const std::int64_t tile = operand.granularity.rows;
      operand.scales =
          operand.scales.slice(0, segment_tiles(offsets.host, first, tile), segment_tiles(own, options_.experts, tile));
      return operand;
    };
    multiply(weight.grad, part(dy), part(x), accumulate || source > 0, std::span<const std::int64_t>(own));
  }
}

}  // namespace shoestring
