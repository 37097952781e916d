#include "core/model/feed_forward.h"

#include <algorithm>

#include "kernels/swiglu.h"

namespace shoestring {
namespace {

constexpr std::int64_t kTile = 128;

LinearOptions gate_up_options(const FeedForwardOptions& options) {
  LinearOptions linear{.in = options.hidden,
                       .out = 2 * options.width,
                       .init_std = options.init_std,
                       .precision = covered_precision(options.precision)};
  append_slice(linear.slices, options.prefix + "gate_proj.weight", options.width, options.hidden);
  append_slice(linear.slices, options.prefix + "up_proj.weight", options.width, options.hidden);
  return linear;
}

LinearOptions down_options(const FeedForwardOptions& options) {
  LinearOptions linear{.in = options.width,
                       .out = options.hidden,
                       .init_std = options.init_std,
                       .precision = covered_precision(options.precision)};
  append_slice(linear.slices, options.prefix + "down_proj.weight", options.hidden, options.width);
  return linear;
}

}  // namespace

bool caches_gate_up(const LinearPrecision& precision, std::int64_t width) {
  return precision.cache_fp8 && precision.weight_gradient == ProductFormat::fp8 &&
         precision.activation == DType::bf16 && width % kTile == 0;
}

ConstScaledView cache_gate_up(const LinearPrecision& precision, ConstTensorView gate_up, Arena& arena,
                              LayerContext& context) {
  const Shape& shape = gate_up.shape;
  // Fine tiles whatever the policy: one scale for the whole tensor, or one of 32, is no use to an elementwise reader.
  const ScaleKind kind = precision.scales == ScaleKind::e8m0 ? ScaleKind::power_of_two : precision.scales;
  ScaledView cached{arena.take(DType::e4m3, shape),
                    arena.take(DType::f32, scales_shape(shape[0], shape[1], kRowTile128)), kRowTile128};
  quantize({.x = gate_up,
            .row_tiles = cached,
            .scale_kind = kind,
            .counts = context.activation_counts(),
            .stream = context.stream});
  return cached;
}

namespace {

/// SwiGLU of `gate_up` straight into the codes of `into` that are there.
void activate_into(const InputCodes& into, const Linear& down, const ConstScaledView& gate_up,
                   ConstTensorView row_weight, QuantizeCounts* counts, LayerContext& context, ExpertOffsets offsets) {
  swiglu_quantize({.row_tiles = into.along_columns,
                   .column_tiles = into.along_rows,
                   .gate_up = gate_up,
                   .row_weight = row_weight,
                   .format = down.precision().activation,
                   .scale_kind = down.precision().scales,
                   .segments = offsets.host,
                   .counts = counts,
                   .scratch = context.scratch,
                   .stream = context.stream});
}

}  // namespace

ConstTensorView activate(Linear& down, const ConstScaledView& gate_up, ConstTensorView row_weight, Saved& saved,
                         LayerContext& context, ExpertOffsets offsets) {
  const std::int64_t rows = gate_up.values.shape[0];
  const Device device = context.stream.device();
  const DType activation = down.precision().activation;
  if (down.takes_input_codes(device.kind)) {
    activate_into(down.expect_input(rows, saved, context, offsets, false), down, gate_up, row_weight,
                  context.activation_counts(), context, offsets);
    return view_of(static_cast<const void*>(nullptr), activation, {rows, down.in()}, device);
  }
  const TensorView h = context.scratch.take(activation, {rows, down.in()});
  swiglu_forward({.y = h, .gate_up = gate_up, .row_weight = row_weight, .clamp = 0, .stream = context.stream});
  return h;
}

// Counted when it was quantised in forward.
void keep_activation(Linear& down, const ConstScaledView& gate_up, ConstTensorView row_weight, Saved& saved,
                     LayerContext& context, ExpertOffsets offsets) {
  const ScaledView kept = down.expect_kept_input(gate_up.values.shape[0], saved, context, offsets);
  if (!kept.values.empty()) activate_into({{}, kept}, down, gate_up, row_weight, nullptr, context, offsets);
}

FeedForward::FeedForward(const FeedForwardOptions& options)
    : width_(options.width),
      activation_(activation_dtype(options.precision)),
      cached_fp8_(caches_gate_up(covered_precision(options.precision), options.width)),
      gate_up_(gate_up_options(options)),
      down_(down_options(options)) {}

void FeedForward::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = x.shape[0];
  Record& record = saved.record<Record>(this);
  record.plain = (cached_fp8_ ? context.scratch : saved.arena()).take(activation_, {tokens, 2 * width_});
  gate_up_.forward(x, record.plain, saved, context);
  record.gate_up = unscaled(ConstTensorView(record.plain));
  const ConstTensorView h = activate(down_, record.gate_up, {}, saved, context);
  if (cached_fp8_ && context.training) {
    record.gate_up = cache_gate_up(gate_up_.precision(), record.plain, saved.arena(), context);
  }
  down_.forward(h, y, saved, context, {}, false);
}

void FeedForward::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = dy.shape[0];
  Record& record = saved.record<Record>(this);
  TensorView dh = context.scratch.take(activation_, {tokens, width_});
  down_.backward_input(dy, dh, saved, context);
  const bool codes = down_.takes_input_codes(context.stream.device().kind);
  if (codes) keep_activation(down_, record.gate_up, {}, saved, context);
  TensorView h = dh;  // made again in place of its gradient, unless the weight gradient reads it there
  if (codes) h = {};
  if (down_.keeps_input()) h = saved.take(activation_, {tokens, width_});
  Arena& gradients = gate_up_.keeps_gradient() ? saved.arena() : context.scratch;
  TensorView dgate_up = cached_fp8_ ? gradients.take(activation_, {tokens, 2 * width_}) : record.plain;
  swiglu_gradient({.dgate_up = dgate_up,
                   .drow_weight = {},
                   .y = h,
                   .dy = dh,
                   .gate_up = record.gate_up,
                   .row_weight = {},
                   .clamp = 0,
                   .stream = context.stream});
  if (!codes) down_.keep_input(h, saved, context);
  gate_up_.backward_input(dgate_up, dx, saved, context);
}

void FeedForward::backward_weight(Saved& saved, LayerContext& context) {
  down_.backward_weight(saved, context);
  gate_up_.backward_weight(saved, context);
}

std::vector<Parameter*> FeedForward::parameters() { return {&gate_up_.weight, &down_.weight}; }

void FeedForward::prepare(const PrepareContext& context) {
  gate_up_.prepare(context);
  down_.prepare(context);
}

}  // namespace shoestring
