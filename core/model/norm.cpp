#include "core/model/norm.h"

#include "core/model/linear.h"
#include "kernels/base/check.h"
#include "kernels/fill.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm_quantize.h"

namespace shoestring {

Norm::Norm(const NormOptions& options) : options_(options) {
  gain.role = ParameterRole::vector;
  gain.rows = options.width;
  gain.columns = 1;
  gain.slices = {{options.name, 0, options.width, {options.width}}};
  gain.init_value = 1;
}

TensorView Norm::take_rstd(ConstTensorView x, Saved& saved, LayerContext& context) const {
  if (!context.training) return {};
  const std::int64_t tokens = x.shape[0];
  return saved.take(options_.master, x.shape.rank() == 3 ? Shape{tokens, x.shape[1]} : Shape{tokens});
}

void Norm::normalise(ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView y, TensorView rstd,
                     LayerContext& context) const {
  rms_norm_forward({.y = y,
                    .rstd = rstd,
                    .x = x,
                    .gamma = gamma(),
                    .residual = residual,
                    .sum = sum,
                    .eps = static_cast<float>(options_.eps),
                    .stream = context.stream});
}

void Norm::normalise_into(Linear& reader, ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView rstd,
                          Saved& saved, LayerContext& context) const {
  const InputCodes codes = reader.expect_input(x.shape[0], saved, context);
  rms_norm_quantize({.row_tiles = codes.along_columns,
                     .column_tiles = codes.along_rows,
                     .rstd = rstd,
                     .x = x,
                     .gamma = gamma(),
                     .residual = residual,
                     .sum = sum,
                     .eps = static_cast<float>(options_.eps),
                     .scale_kind = reader.precision().scales,
                     .counts = context.activation_counts(),
                     .scratch = context.scratch,
                     .stream = context.stream});
}

void Norm::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, Linear* reader) {
  forward(x, {}, {}, y, saved, context, reader);
}

void Norm::forward(ConstTensorView x, ConstTensorView residual, TensorView sum, TensorView y, Saved& saved,
                   LayerContext& context, Linear* reader) {
  const TensorView rstd = take_rstd(x, saved, context);
  if (context.training) saved.record<Record>(this) = {residual.empty() ? x : ConstTensorView(sum), rstd, {}};
  if (!y.empty()) return normalise(x, residual, sum, y, rstd, context);
  check(reader != nullptr, "{}: nobody reads its result", gain.slices.front().name);
  normalise_into(*reader, x, residual, sum, rstd, saved, context);
}

void Norm::recompute(ConstTensorView x, TensorView y, LayerContext& context) const {
  normalise(x, {}, {}, y, {}, context);
}

void Norm::backward_input(ConstTensorView dy, TensorView dx, bool accumulate, Saved& saved, LayerContext& context) {
  Record& record = saved.record<Record>(this);
  if (!gain.frozen) {
    record.dgain = saved.take(options_.master, {options_.width});
    fill(record.dgain, 0.0, context.stream);
    rms_norm_weight_gradient(
        {.dgamma = record.dgain, .dy = dy, .x = record.x, .rstd = record.rstd, .stream = context.stream});
  }
  rms_norm_input_gradient({.dx = dx,
                           .dy = dy,
                           .x = record.x,
                           .gamma = gamma(),
                           .rstd = record.rstd,
                           .accumulate = accumulate,
                           .stream = context.stream});
}

void Norm::backward_weight(Saved& saved, LayerContext& context) {
  if (gain.frozen) return;
  axpy(gain.grad.reshaped({options_.width}), 1.0, saved.record<Record>(this).dgain, context.stream);
}

}  // namespace shoestring
