#include "core/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/base/workers.h"
#include "kernels/fill.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

constexpr std::string_view kWeight = ".weight";

/// "model.layers.0.self_attn.q_proj" of
/// "model.layers.0.self_attn.q_proj.weight".
std::string module_of(const ParameterSlice& slice) {
  return slice.name.substr(0, slice.name.size() - std::min(kWeight.size(), slice.name.size()));
}

bool is_target(const ParameterSlice& slice, const LoraSpec& lora) {
  const std::string module = module_of(slice);
  const std::string last = module.substr(module.rfind('.') + 1);
  return std::find(lora.targets.begin(), lora.targets.end(), last) != lora.targets.end();
}

/// Products that read and write activations in their own format.
LinearPrecision plain(const LinearPrecision& host) {
  LinearPrecision precision;
  precision.activation = host.activation;
  precision.master = host.master;
  const ProductFormat format = host.activation == DType::f64   ? ProductFormat::f64
                               : host.activation == DType::f32 ? ProductFormat::f32
                                                               : ProductFormat::bf16;
  precision.forward = precision.input_gradient = precision.weight_gradient = format;
  return precision;
}

LinearOptions down_options(const LinearOptions& host, const LoraSpec& lora,
                           const std::vector<const ParameterSlice*>& targets) {
  LinearOptions options{.in = host.in,
                        .out = lora.rank * static_cast<std::int64_t>(targets.size()),
                        .init_std = 1 / std::sqrt(3 * static_cast<double>(host.in)),
                        .precision = plain(host.precision)};
  for (const ParameterSlice* target : targets) {
    append_slice(options.slices, module_of(*target) + ".lora_A.weight", lora.rank, host.in);
  }
  return options;
}

LinearOptions up_options(const LinearOptions& host, const LoraSpec& lora, const ParameterSlice& target) {
  LinearOptions options{.in = lora.rank, .out = target.rows, .init_std = 0, .precision = plain(host.precision)};
  append_slice(options.slices, module_of(target) + ".lora_B.weight", target.rows, lora.rank);
  return options;
}

}  // namespace

std::unique_ptr<Adapter> Adapter::of(const LinearOptions& host, const LoraSpec& lora) {
  std::vector<const ParameterSlice*> targets;
  for (const ParameterSlice& slice : host.slices) {
    if (is_target(slice, lora)) targets.push_back(&slice);
  }
  if (targets.empty()) return nullptr;
  return std::unique_ptr<Adapter>(new Adapter(host, lora, targets));
}

Adapter::Adapter(const LinearOptions& host, const LoraSpec& lora, const std::vector<const ParameterSlice*>& targets)
    : rank_(lora.rank),
      out_(host.out),
      factor_(lora.factor()),
      covers_(targets.size() == host.slices.size()),
      precision_(plain(host.precision)),
      down_(down_options(host, lora, targets)) {
  for (const ParameterSlice* target : targets) {
    projections_.push_back({target->name, target->begin, std::make_unique<Linear>(up_options(host, lora, *target))});
  }
  for (Parameter* factor : factors()) factor->role = ParameterRole::factor;
}

const Adapter::Projection* Adapter::find(const ParameterSlice& slice) const {
  const auto found = std::find_if(projections_.begin(), projections_.end(),
                                  [&](const Projection& projection) { return projection.name == slice.name; });
  return found == projections_.end() ? nullptr : &*found;
}

void Adapter::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, bool keep_input) {
  Arena::Scope scope(context.scratch);
  const std::int64_t rows = x.shape[0];
  Arena& kept = context.training ? saved.arena() : context.scratch;
  const TensorView low = kept.take(precision_.activation, {rows, narrow()});
  down_.forward(x, low, saved, context, {}, keep_input);
  const TensorView change = context.scratch.take(precision_.activation, {rows, out_});
  if (!covers_) fill(change, 0.0, context.stream);
  for (std::size_t i = 0; i < projections_.size(); ++i) {
    const Projection& projection = projections_[i];
    projection.up->forward(columns(low, i), change.slice(1, projection.begin, projection.up->out()), saved, context);
  }
  axpy(y, factor_, change, context.stream);
}

void Adapter::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  const TensorView scaled = saved.take(precision_.activation, dy.shape);
  scale(scaled, factor_, dy, context.stream);
  const TensorView dlow = saved.take(precision_.activation, {dy.shape[0], narrow()});
  for (std::size_t i = 0; i < projections_.size(); ++i) {
    const Projection& projection = projections_[i];
    projection.up->backward_input(scaled.slice(1, projection.begin, projection.up->out()), columns(dlow, i), saved,
                                  context);
  }
  down_.backward_input(dlow, dx, saved, context, {}, true);
}

void Adapter::backward_weight(Saved& saved, LayerContext& context) {
  for (const Projection& projection : projections_) projection.up->backward_weight(saved, context);
  down_.backward_weight(saved, context);
}

void Adapter::prepare(const PrepareContext& context) {
  const PrepareContext uncounted{context.scratch, context.stream, nullptr, nullptr, context.backward};
  down_.prepare(uncounted);
  for (const Projection& projection : projections_) projection.up->prepare(uncounted);
}

std::vector<Parameter*> Adapter::factors() {
  std::vector<Parameter*> all{&down_.weight};
  for (const Projection& projection : projections_) all.push_back(&projection.up->weight);
  return all;
}

void Adapter::add_to(TensorView sum, const ParameterSlice& slice, Stream& stream) const {
  const Projection& projection = *find(slice);
  const std::int64_t place = (&projection - projections_.data()) * rank_;
  const ConstTensorView a = ConstTensorView(down_.weight.value).slice(0, place, rank_);
  const ConstTensorView b = projection.up->weight.value;
  Tensor scaled(sum.dtype, b.shape, stream.device());
  scale(scaled.view(), factor_, b, stream);
  Arena scratch(gemm_scratch_bytes(sum.shape[0], sum.shape[1], rank_, stream.workers().count(), false),
                stream.device());
  gemm({.c = sum,
        .a = unscaled(ConstTensorView(scaled.view())),
        .b = unscaled(a.transposed()),
        .accumulate = true,
        .scratch = scratch,
        .stream = stream});
}

// ---- memory

std::int64_t Adapter::saved_bytes(std::int64_t rows) const {
  return 2 * arena_bytes(precision_.activation, rows * narrow()) + arena_bytes(precision_.activation, rows * out_);
}

std::int64_t Adapter::scratch_bytes(std::int64_t rows, int workers) const {
  std::int64_t inner = down_.scratch_bytes(rows, workers);
  for (const Projection& projection : projections_) {
    inner = std::max(inner, projection.up->scratch_bytes(rows, workers));
  }
  return arena_bytes(precision_.activation, rows * narrow()) + arena_bytes(precision_.activation, rows * out_) + inner;
}

std::int64_t Adapter::prepared_bytes() const {
  return std::accumulate(
      projections_.begin(), projections_.end(), down_.prepared_bytes(),
      [](std::int64_t sum, const Projection& projection) { return sum + projection.up->prepared_bytes(); });
}

}  // namespace shoestring
