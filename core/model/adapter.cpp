#include "core/model/adapter.h"

#include <algorithm>
#include <cmath>

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

/// A stack as `host` is, without its rows.
LinearOptions stacked_like(const LinearOptions& host) {
  return {.experts = host.experts,
          .first_expert = host.first_expert,
          .sources = host.sources,
          .precision = plain(host.precision)};
}

}  // namespace

// Stacked experts have the same projections in the same order, one expert after the other.
Adapter::Targets Adapter::targets_of(const LinearOptions& host, const LoraSpec& lora) {
  const std::size_t stack = host.experts > 0 ? static_cast<std::size_t>(host.experts) : 1;
  const std::size_t each = host.slices.size() / stack;
  Targets targets;
  for (std::size_t i = 0; i < each; ++i) {
    if (!is_target(host.slices[i], lora)) continue;
    std::vector<const ParameterSlice*>& experts = targets.emplace_back();
    for (std::size_t e = 0; e < stack; ++e) experts.push_back(&host.slices[e * each + i]);
  }
  return targets;
}

LinearOptions Adapter::down_options(const LinearOptions& host, const LoraSpec& lora, const Targets& targets) {
  LinearOptions options = stacked_like(host);
  options.in = host.in;
  options.out = lora.rank * std::ssize(targets);
  options.init_std = 1 / std::sqrt(3 * static_cast<double>(host.in));
  for (std::size_t e = 0; e < targets.front().size(); ++e) {
    for (const auto& projection : targets) {
      append_slice(options.slices, module_of(*projection[e]) + ".lora_A.weight", lora.rank, host.in);
    }
  }
  return options;
}

LinearOptions Adapter::up_options(const LinearOptions& host, const LoraSpec& lora,
                                  const std::vector<const ParameterSlice*>& experts) {
  LinearOptions options = stacked_like(host);
  options.in = lora.rank;
  options.out = experts.front()->rows;
  for (const ParameterSlice* target : experts) {
    append_slice(options.slices, module_of(*target) + ".lora_B.weight", target->rows, lora.rank);
  }
  return options;
}

std::unique_ptr<Adapter> Adapter::of(const LinearOptions& host, const LoraSpec& lora) {
  const Targets targets = targets_of(host, lora);
  if (targets.empty()) return nullptr;
  return std::unique_ptr<Adapter>(new Adapter(host, lora, targets));
}

Adapter::Adapter(const LinearOptions& host, const LoraSpec& lora, const Targets& targets)
    : rank_(lora.rank),
      out_(host.out),
      factor_(lora.factor()),
      covers_(targets.size() * targets.front().size() == host.slices.size()),
      precision_(plain(host.precision)),
      down_(down_options(host, lora, targets)) {
  for (std::size_t i = 0; i < targets.size(); ++i) {
    projections_.push_back({targets[i].front()->begin, std::make_unique<Linear>(up_options(host, lora, targets[i]))});
    for (std::size_t e = 0; e < targets[i].size(); ++e) {
      places_.emplace(targets[i][e]->name, Place{i, static_cast<std::int64_t>(e)});
    }
  }
  for (Parameter* factor : factors()) factor->role = ParameterRole::factor;
}

void Adapter::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context, ExpertOffsets offsets,
                      bool keep_input) {
  Arena::Scope scope(context.scratch);
  const std::int64_t rows = x.shape[0];
  Arena& kept = context.training ? saved.arena() : context.scratch;
  const TensorView low = kept.take(precision_.activation, {rows, narrow()});
  down_.forward(x, low, saved, context, offsets, keep_input);
  const TensorView change = context.scratch.take(precision_.activation, {rows, out_});
  if (!covers_) fill(change, 0.0, context.stream);
  for (std::size_t i = 0; i < projections_.size(); ++i) {
    const Projection& projection = projections_[i];
    projection.up->forward(columns(low, i), change.slice(1, projection.begin, projection.up->out()), saved, context,
                           offsets);
  }
  axpy(y, factor_, change, context.stream);
}

void Adapter::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context,
                             ExpertOffsets offsets) {
  const TensorView scaled = saved.take(precision_.activation, dy.shape);
  scale(scaled, factor_, dy, context.stream);
  const TensorView dlow = saved.take(precision_.activation, {dy.shape[0], narrow()});
  for (std::size_t i = 0; i < projections_.size(); ++i) {
    const Projection& projection = projections_[i];
    projection.up->backward_input(scaled.slice(1, projection.begin, projection.up->out()), columns(dlow, i), saved,
                                  context, offsets);
  }
  down_.backward_input(dlow, dx, saved, context, offsets, true);
}

void Adapter::backward_weight(Saved& saved, LayerContext& context, ExpertOffsets offsets) {
  for (const Projection& projection : projections_) projection.up->backward_weight(saved, context, offsets);
  down_.backward_weight(saved, context, offsets);
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
  const Place place = places_.at(slice.name);
  const Linear& up = *projections_[place.projection].up;
  const std::int64_t first = place.expert * narrow() + static_cast<std::int64_t>(place.projection) * rank_;
  const ConstTensorView a = ConstTensorView(down_.weight.value).slice(0, first, rank_);
  const ConstTensorView b = ConstTensorView(up.weight.value).slice(0, place.expert * up.out(), up.out());
  Tensor scaled(sum.dtype, b.shape, stream.device());
  scale(scaled.view(), factor_, b, stream);
  Arena scratch = Arena::growing(stream.device());
  gemm({.c = sum,
        .a = unscaled(ConstTensorView(scaled.view())),
        .b = unscaled(a.transposed()),
        .accumulate = true,
        .scratch = scratch,
        .stream = stream});
}

}  // namespace shoestring
