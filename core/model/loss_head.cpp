#include "core/model/loss_head.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

LossHead::LossHead(const ModelConfig& config, const PrecisionSpec& precision, const RopeTable& rope, OutputHead& head,
                   TokenEmbedding* embedding, const ExpertShare& share)
    : hidden_(config.hidden),
      activation_(activation_dtype(precision)),
      head_(head),
      norm_({"model.norm.weight", config.hidden, 1, config.norm_eps, master_dtype(precision)}) {
  if (config.mtp_layers == 0) return;
  check(embedding != nullptr, "multi-token prediction needs a token table");
  further_ = std::make_unique<MultiTokenPrediction>(config, precision, rope, *embedding, head, share);
}

void LossHead::forward(ConstTensorView x, const MicroBatch& batch, const Objective& objective,
                       const ObjectiveTotals& totals, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const Shape shape{x.shape[0], hidden_};
  const bool further = further_ && context.training;
  const TensorView normed = (further ? saved.arena() : context.scratch).take(activation_, shape);
  norm_.forward(x, normed, saved, context);
  TensorView dnormed;
  if (context.training) dnormed = saved.record<Record>(this).dnormed = saved.take(activation_, shape);
  head_.loss({.x = normed, .batch = batch, .objective = objective, .totals = totals.main, .dx = dnormed}, saved,
             context);
  if (further) further_->forward(normed, batch, objective, totals.further, saved, context);
}

void LossHead::backward_input(TensorView dx, Saved& saved, LayerContext& context) {
  const TensorView dnormed = saved.record<Record>(this).dnormed;
  if (further_) further_->backward_input(dnormed, saved, context);
  norm_.backward_input(dnormed, dx, false, saved, context);
}

void LossHead::backward_weight(const MicroBatch& batch, Saved& saved, LayerContext& context) {
  if (further_) further_->backward_weight(batch, saved, context);
  norm_.backward_weight(saved, context);
}

void LossHead::logits(ConstTensorView x, TensorView logits, Saved& saved, LayerContext& context) {
  Arena::Scope scope(context.scratch);
  const TensorView normed = context.scratch.take(activation_, x.shape);
  norm_.forward(x, normed, saved, context);
  head_.logits(normed, logits, saved, context);
}

std::vector<Parameter*> LossHead::parameters() {
  std::vector<Parameter*> all{&norm_.gain};
  if (further_) {
    for (Parameter* parameter : further_->parameters()) all.push_back(parameter);
  }
  return all;
}

void LossHead::prepare(const PrepareContext& context) {
  if (further_ && context.backward) further_->prepare(context);  // it serves training alone
}

}  // namespace shoestring
