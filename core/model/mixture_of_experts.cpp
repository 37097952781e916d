#include "core/model/mixture_of_experts.h"

#include <fmt/core.h>

#include <algorithm>

#include "kernels/router_load.h"
#include "kernels/swiglu.h"

namespace shoestring {
namespace {

RouterKind kind_of(RouterKindSpec spec) {
  switch (spec) {
    case RouterKindSpec::softmax: return RouterKind::softmax;
    case RouterKindSpec::sigmoid: return RouterKind::sigmoid;
    case RouterKindSpec::sqrt_softplus: return RouterKind::sqrt_softplus;
  }
  return RouterKind::softmax;
}

LinearOptions router_options(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix) {
  LinearPrecision formats = exempt_precision(precision);
  const ProductFormat wide = formats.master == DType::f64 ? ProductFormat::f64 : ProductFormat::f32;
  formats.forward = formats.input_gradient = formats.weight_gradient = wide;  // the router is FP32 under every policy
  LinearOptions options{.in = config.hidden, .out = config.experts, .init_std = config.init_std, .precision = formats};
  append_slice(options.slices, prefix + "gate.weight", config.experts, config.hidden);
  return options;
}

LinearOptions expert_options(const ModelConfig& config, const PrecisionSpec& precision, const std::string& prefix,
                             const ExpertShare& share, bool down) {
  check(share.ranks > 0 && share.rank >= 0 && share.rank < share.ranks && config.experts % share.ranks == 0,
        "{} experts for rank {} of {}", config.experts, share.rank, share.ranks);
  const std::int64_t count = config.experts / share.ranks;
  const ExpertRange own{share.rank * count, count};
  const std::int64_t width = config.expert_feed_forward;
  LinearOptions options{.in = down ? width : config.hidden,
                        .out = down ? config.hidden : 2 * width,
                        .experts = own.count,
                        .first_expert = own.first,
                        .sources = share.ranks,
                        .init_std = config.init_std,
                        .precision = covered_precision(precision)};
  for (std::int64_t e = own.first; e < own.first + own.count; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", prefix, e);
    if (down) {
      append_slice(options.slices, expert + "down_proj.weight", config.hidden, width);
    } else {
      append_slice(options.slices, expert + "gate_proj.weight", width, config.hidden);
      append_slice(options.slices, expert + "up_proj.weight", width, config.hidden);
    }
  }
  return options;
}

}  // namespace

MixtureOfExperts::MixtureOfExperts(const ModelConfig& config, const PrecisionSpec& precision, std::int64_t index,
                                   const std::string& prefix, const ExpertShare& share)
    : share_(share),
      index_(index),
      hidden_(config.hidden),
      width_(config.expert_feed_forward),
      experts_(config.experts),
      chosen_(config.experts_per_token),
      kind_(kind_of(config.router)),
      groups_(config.expert_groups),
      topk_groups_(config.expert_topk_groups),
      group_by_best_(config.group_by_best),
      normalize_(config.normalize_weights),
      scale_(static_cast<float>(config.routed_scale)),
      alpha_(static_cast<float>(config.balance_loss)),
      activation_(activation_dtype(precision)),
      master_(master_dtype(precision)),
      cached_fp8_(caches_gate_up(covered_precision(precision), config.expert_feed_forward)),
      packs_(precision.dispatch == DispatchFormat::fp8),
      plain_operands_(covered_precision(precision).weight_gradient != ProductFormat::fp8),
      router_(router_options(config, precision, prefix)),
      gate_up_(expert_options(config, precision, prefix, share, false)),
      down_(expert_options(config, precision, prefix, share, true)) {
  if (config.shared_experts > 0) {
    shared_ = std::make_unique<FeedForward>(FeedForwardOptions{config.hidden, config.shared_feed_forward(),
                                                               config.init_std, prefix + "shared_experts.", precision});
  }
  if (config.router_bias) {
    bias_.role = ParameterRole::statistic;
    bias_.rows = experts_;
    bias_.columns = 1;
    bias_.slices = {{prefix + "gate.e_score_correction_bias", 0, experts_, {experts_}}};
  }
}

// ---- forward

void MixtureOfExperts::route(ConstTensorView x, Record& record, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = x.shape[0];
  record.indices = saved.take(DType::i32, {tokens, chosen_});
  record.weights = saved.take(master_, {tokens, chosen_});
  record.scores = saved.take(master_, {tokens, experts_});
  record.plan = {saved.take(DType::i64, {experts_}), saved.take(DType::i64, {experts_ + 1}),
                 saved.take(DType::i32, {slots(tokens)}),
                 saved.take(DType::i32, {most_rows_of(tokens, context.stream.device().kind)})};
  const TensorView logits = context.scratch.take(master_, {tokens, experts_});
  router_.forward(x, logits, saved, context);
  ConstTensorView bias;
  if (bias_.rows > 0) bias = bias_.value.reshaped({experts_});
  router_forward({.indices = record.indices,
                  .weights = record.weights,
                  .scores = record.scores,
                  .logits = logits,
                  .bias = bias,
                  .kind = kind_,
                  .groups = groups_,
                  .topk_groups = topk_groups_,
                  .group_by_best = group_by_best_,
                  .normalize = normalize_,
                  .scale = scale_,
                  .stream = context.stream});
  plan_permutation(record.plan, record.indices, context.stream, row_multiple(context.stream.device().kind));
  announce_rows(record, context);
  if (!context.training) return;
  StepTally* tally = context.tally;
  if (tally != nullptr) router_count_load(tally->loads_of(index_), record.indices, context.stream);
  if (alpha_ == 0) return;
  const std::int64_t sequences = context.tokens.sequence_starts.shape[0] - 1;
  record.load = saved.take(master_, {sequences, experts_});
  const TensorView loss = tally != nullptr ? tally->balance_of(index_) : context.scratch.take(DType::f64, {1});
  router_balance_loss({.loss = loss,
                       .losses = context.scratch.take(DType::f64, {sequences}),
                       .load = record.load,
                       .indices = record.indices,
                       .scores = record.scores,
                       .sequence_starts = context.tokens.sequence_starts,
                       .alpha = alpha_,
                       .stream = context.stream});
}

void MixtureOfExperts::run_experts(ConstTensorView x, TensorView y, Record& record, Saved& saved_of_batch,
                                   LayerContext& context_of_batch) {
  Saved& saved = of_rows(record, saved_of_batch);
  LayerContext context = for_rows(context_of_batch);
  Arena::Scope scope(context.scratch);
  const ExpertOffsets offsets = offsets_of(record);
  const std::int64_t rows = offsets.rows();
  record.gate_up_plain = (cached_fp8_ ? context.scratch : saved.arena()).take(activation_, {rows, 2 * width_});
  {
    Arena::Scope gather(context.scratch);
    TensorView xp;
    if (!shared_out() && gate_up_.takes_input_codes(context.stream.device().kind)) {
      gather_into(gate_up_.expect_input(rows, saved, context, offsets), gate_up_, x, record, context,
                  context.activation_counts());
    } else {
      const bool kept = gate_up_.keeps_input() && (!gathers_again() || shared_out());
      xp = (kept ? saved.arena() : context.scratch).take(activation_, {rows, hidden_});
      to_experts(x, xp, record.row_weights, record, context, context.activation_counts());
      record.received = xp;
    }
    gate_up_.forward(xp, record.gate_up_plain, saved, context, offsets, !gathers_again());
  }
  record.gate_up = unscaled(ConstTensorView(record.gate_up_plain));
  const ConstTensorView h = activate(down_, record.gate_up, record.row_weights, saved, context, offsets);
  if (cached_fp8_ && context.training) {
    record.gate_up = cache_gate_up(gate_up_.precision(), record.gate_up_plain, saved.arena(), context);
  }
  const TensorView yp = context.scratch.take(activation_, {rows, hidden_});
  down_.forward(h, yp, saved, context, offsets, false);
  from_experts(yp, y, {}, record, context);
}

void MixtureOfExperts::forward(ConstTensorView x, TensorView y, Saved& saved, LayerContext& context) {
  Record& record = saved.record<Record>(this);
  route(x, record, saved, context);
  record.x = rounded(x, saved, context, context.activation_counts());
  if (shared_) shared_->forward(x, y, saved, context);  // while counts of rows are on their way
  plan_rows(record, saved, context);
  run_experts(record.x, y, record, saved, context);
}

// ---- backward

void MixtureOfExperts::backward_experts(ConstTensorView dy, TensorView dxp, TensorView drow_weights, Record& record,
                                        Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t rows = dxp.shape[0];
  const ExpertOffsets offsets = offsets_of(record);
  const TensorView dh = context.scratch.take(activation_, {rows, width_});
  {
    Arena::Scope gather(context.scratch);
    TensorView dyp;
    if (!shared_out() && down_.takes_gradient_codes(context.stream.device().kind)) {
      gather_into(down_.expect_gradient(rows, saved, context, offsets), down_, dy, record, context,
                  context.gradient_counts());
    } else {
      const bool kept = gathers_again() && shared_out();
      dyp = (kept ? saved.arena() : context.scratch).take(activation_, {rows, hidden_});
      to_experts(dy, dyp, {}, record, context, context.gradient_counts());
    }
    down_.backward_input(dyp, dh, saved, context, offsets);
    record.received_gradient = dyp;
  }
  const bool codes = down_.takes_input_codes(context.stream.device().kind);
  if (codes) keep_activation(down_, record.gate_up, record.row_weights, saved, context, offsets);
  record.h = dh;
  if (codes) record.h = {};
  if (down_.keeps_input()) record.h = saved.take(activation_, {rows, width_});
  record.dgate_up = cached_fp8_ ? context.scratch.take(activation_, {rows, 2 * width_}) : record.gate_up_plain;
  swiglu_gradient({.dgate_up = record.dgate_up,
                   .drow_weight = drow_weights,
                   .y = record.h,
                   .dy = dh,
                   .gate_up = record.gate_up,
                   .row_weight = record.row_weights,
                   .stream = context.stream});
  if (!gathers_again() && !codes) down_.keep_input(record.h, saved, context, offsets);
  gate_up_.backward_input(record.dgate_up, dxp, saved, context, offsets);
}

void MixtureOfExperts::backward_input(ConstTensorView dy, TensorView dx, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  Record& record = saved.record<Record>(this);
  record.dy = rounded(dy, saved, context, context.gradient_counts());
  const std::int64_t tokens = dy.shape[0];
  if (shared_) shared_->backward_input(dy, dx, saved, context);
  const std::int64_t rows = record.offsets.back();
  LayerContext rows_context = for_rows(context);
  Arena::Scope rows_scope(rows_context.scratch);
  const TensorView dxp = rows_context.scratch.take(activation_, {rows, hidden_});
  TensorView drow_weights = rows_context.scratch.take(master_, {rows});
  backward_experts(record.dy, dxp, drow_weights, record, of_rows(record, saved), rows_context);
  ExpertExchange::Beside weights;
  if (shared_out()) weights = {drow_weights.reshaped({rows, 1}), context.scratch.take(master_, {slots(tokens), 1})};
  from_experts(dxp, dx, weights, record, rows_context);
  if (shared_out()) drow_weights = weights.to.reshaped({slots(tokens)});
  const TensorView dweights = context.scratch.take(master_, {tokens, chosen_});
  weights_to_slots(dweights, drow_weights, record.plan, context.stream);
  const TensorView dlogits = saved.take(master_, {tokens, experts_});
  ConstTensorView starts;
  if (!record.load.empty()) starts = context.tokens.sequence_starts;
  router_gradient({.dlogits = dlogits,
                   .dweights = dweights,
                   .indices = record.indices,
                   .scores = record.scores,
                   .kind = kind_,
                   .normalize = normalize_,
                   .scale = scale_,
                   .load = record.load,
                   .sequence_starts = starts,
                   .alpha = alpha_,
                   .stream = context.stream});
  router_.backward_input(dlogits, dx, saved, context, {}, true);
}

void MixtureOfExperts::backward_weight(Saved& saved, LayerContext& context) {
  experts_backward_weight(saved, context);
  router_.backward_weight(saved, context);
  if (shared_) shared_->backward_weight(saved, context);
}

void MixtureOfExperts::experts_backward_weight(Saved& saved_of_batch, LayerContext& context_of_batch) {
  Record& record = saved_of_batch.record<Record>(this);
  Saved& saved = of_rows(record, saved_of_batch);
  LayerContext context = for_rows(context_of_batch);
  const ExpertOffsets offsets = offsets_of(record);
  if (gathers_again() && shared_out()) {
    down_.backward_weight_of(record.h, record.received_gradient, context, offsets);
    gate_up_.backward_weight_of(record.received, record.dgate_up, context, offsets);
  } else if (gathers_again()) {
    {
      Arena::Scope scope(context.scratch);
      down_.backward_weight_of(record.h, gathered(record.dy, offsets.rows(), record, context), context, offsets);
    }
    Arena::Scope scope(context.scratch);
    gate_up_.backward_weight_of(gathered(record.x, offsets.rows(), record, context), record.dgate_up, context, offsets);
  } else {
    down_.backward_weight(saved, context, offsets);
    gate_up_.backward_weight(saved, context, offsets);
  }
}

// ---- weights and statistics

std::vector<Parameter*> MixtureOfExperts::parameters() {
  std::vector<Parameter*> all{&router_.weight};
  if (bias_.rows > 0) all.push_back(&bias_);
  all.insert(all.end(), {&gate_up_.weight, &down_.weight});
  if (shared_) {
    for (Parameter* parameter : shared_->parameters()) all.push_back(parameter);
  }
  return all;
}

std::vector<Linear*> MixtureOfExperts::linears() {
  std::vector<Linear*> all{&gate_up_, &down_};
  if (shared_) {
    for (Linear* linear : shared_->linears()) all.push_back(linear);
  }
  return all;
}

void MixtureOfExperts::prepare(const PrepareContext& context) {
  // What the router's FP32 weights are packed from is not quantised: it counts nothing.
  router_.prepare(context);
  const PrepareContext of_experts{context.scratch, context.stream, context.expert_counts};
  gate_up_.prepare(of_experts);
  down_.prepare(of_experts);
  if (shared_) shared_->prepare(context);
}

void MixtureOfExperts::update_bias(ConstTensorView global_counts, double speed, Stream& stream) {
  if (bias_.rows == 0 || speed == 0) return;
  router_update_bias(bias_.value.reshaped({experts_}), global_counts, static_cast<float>(speed), stream);
}

}  // namespace shoestring
