#include "core/model/multi_token_prediction.h"

#include <fmt/core.h>

#include <algorithm>

namespace shoestring {
namespace {

std::string tensor_name(const ModelConfig& config, const char* which) {
  return fmt::format("model.layers.{}.{}.weight", config.layers, which);
}

NormOptions norm_options(const ModelConfig& config, const PrecisionSpec& precision, const char* which) {
  return {tensor_name(config, which), config.hidden, 1, config.norm_eps, master_dtype(precision)};
}

LinearOptions join_options(const ModelConfig& config, const PrecisionSpec& precision) {
  LinearOptions options{.in = 2 * config.hidden,
                        .out = config.hidden,
                        .init_std = config.init_std,
                        .precision = exempt_precision(precision)};
  append_slice(options.slices, tensor_name(config, "eh_proj"), config.hidden, 2 * config.hidden);
  return options;
}

}  // namespace

MultiTokenPrediction::MultiTokenPrediction(const ModelConfig& config, const PrecisionSpec& precision,
                                           const RopeTable& rope, TokenEmbedding& embedding, OutputHead& head,
                                           const ExpertShare& share)
    : hidden_(config.hidden),
      activation_(activation_dtype(precision)),
      embedding_(embedding),
      head_(head),
      embedding_norm_(norm_options(config, precision, "enorm")),
      hidden_norm_(norm_options(config, precision, "hnorm")),
      join_(join_options(config, precision)),
      block_(config, precision, config.layers, rope, share),
      head_norm_(norm_options(config, precision, "shared_head.norm")) {}

TensorView MultiTokenPrediction::take(bool saved_too, std::int64_t tokens, std::int64_t columns, Saved& saved,
                                      LayerContext& context) const {
  return (saved_too ? saved.arena() : context.scratch).take(activation_, {tokens, columns});
}

void MultiTokenPrediction::forward(ConstTensorView h, const MicroBatch& batch, const Objective& objective,
                                   const LossTotals& totals, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = h.shape[0];
  Record& record = saved.record<Record>(this);
  for (TensorView* view : {&record.embedded, &record.block_in, &record.block_out, &record.dnormed}) {
    *view = saved.take(activation_, {tokens, hidden_});
  }
  embedding_.forward(batch.next_ids(), record.embedded, context);
  const TensorView joined = take(join_.keeps_input(), tokens, 2 * hidden_, saved, context);
  embedding_norm_.forward(record.embedded, joined.slice(1, 0, hidden_), saved, context);
  hidden_norm_.forward(h, joined.slice(1, hidden_, hidden_), saved, context);
  join_.forward(joined, record.block_in, saved, context);
  block_.forward(record.block_in, record.block_out, saved, context);
  const TensorView normed = context.scratch.take(activation_, {tokens, hidden_});
  head_norm_.forward(record.block_out, normed, saved, context);
  head_.loss({.x = normed,
              .batch = batch,
              .objective = objective,
              .totals = totals,
              .depth = Depth::further,
              .dx = record.dnormed},
             saved, context);
}

void MultiTokenPrediction::backward_input(TensorView dh, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const std::int64_t tokens = dh.shape[0];
  Record& record = saved.record<Record>(this);
  const TensorView dout = take(block_.keeps_gradient(), tokens, hidden_, saved, context);
  const TensorView din = take(join_.keeps_gradient(), tokens, hidden_, saved, context);
  const TensorView djoined = context.scratch.take(activation_, {tokens, 2 * hidden_});
  record.dembedded = saved.take(activation_, {tokens, hidden_});
  head_norm_.backward_input(record.dnormed, dout, false, saved, context);
  block_.backward_input(dout, din, saved, context);
  join_.backward_input(din, djoined, saved, context);
  embedding_norm_.backward_input(djoined.slice(1, 0, hidden_), record.dembedded, false, saved, context);
  hidden_norm_.backward_input(djoined.slice(1, hidden_, hidden_), dh, true, saved, context);
}

void MultiTokenPrediction::backward_weight(const MicroBatch& batch, Saved& saved, LayerContext& context) {
  head_norm_.backward_weight(saved, context);
  block_.backward_weight(saved, context);
  join_.backward_weight(saved, context);
  embedding_norm_.backward_weight(saved, context);
  hidden_norm_.backward_weight(saved, context);
  embedding_.backward_weight(batch.next_ids(), saved.record<Record>(this).dembedded, context);
}

std::vector<Parameter*> MultiTokenPrediction::parameters() {
  std::vector<Parameter*> all{&embedding_norm_.gain, &hidden_norm_.gain, &join_.weight};
  for (Parameter* parameter : block_.parameters()) all.push_back(parameter);
  all.push_back(&head_norm_.gain);
  return all;
}

void MultiTokenPrediction::prepare(const PrepareContext& context) {
  join_.prepare(context);
  block_.prepare(context);
}

}  // namespace shoestring
