#include "core/model/transformer_stage.h"

#include <algorithm>
#include <ranges>

#include "core/model/linear.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

template <class View>
View first_rows(const View& view, std::int64_t rows) {
  return view.empty() ? view : view.slice(0, 0, rows);
}

}  // namespace

TransformerStage::TransformerStage(StageParts parts) : parts_(std::move(parts)) {}

void TransformerStage::allocate(std::int64_t saved_bytes, int in_flight, const StageRuntime& runtime) {
  runtime_ = &runtime;
  for (int i = 0; i < in_flight; ++i) {
    slots_.push_back(std::make_unique<Slot>(saved_bytes, runtime.stream.device()));
  }
}

TransformerStage::Slot& TransformerStage::free_slot(int microbatch) {
  const auto it = std::find_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->microbatch < 0; });
  check(it != slots_.end(), "micro-batch {} begins while {} others are in flight: no memory is planned for it",
        microbatch, slots_.size());
  (*it)->saved.clear();  // an evaluation may have used it
  (*it)->microbatch = microbatch;
  return **it;
}

TransformerStage::Slot& TransformerStage::slot_of(int microbatch) {
  const auto it =
      std::find_if(slots_.begin(), slots_.end(), [&](const auto& slot) { return slot->microbatch == microbatch; });
  check(it != slots_.end(), "micro-batch {} is not in flight", microbatch);
  return **it;
}

LayerContext TransformerStage::context(const MicroBatch& batch, StepTally* tally, const StageScratch& scratch) const {
  return {.tokens = batch.layout(),
          .scratch = scratch.planned,
          .stream = runtime_->stream,
          .training = tally != nullptr,
          .tally = tally,
          .growing = &scratch.growing};
}

ConstTensorView TransformerStage::run_blocks(const MicroBatch& batch, ConstTensorView input, TensorView output,
                                             Saved& saved, LayerContext& context) {
  const Shape shape{batch.tokens(), parts_.hidden};
  ConstTensorView x = input;
  if (parts_.embedding != nullptr) {
    const bool straight = parts_.blocks.empty() && parts_.loss == nullptr;
    const TensorView embedded = straight ? output : saved.take(parts_.activation, shape);
    parts_.embedding->forward(batch.inputs(), embedded, context);
    x = embedded;
  }
  for (std::size_t i = 0; i < parts_.blocks.size(); ++i) {
    const bool last = i + 1 == parts_.blocks.size();
    const TensorView y = last && !output.empty() ? output : saved.take(parts_.activation, shape);
    parts_.blocks[i]->forward(x, y, saved, context);
    x = y;
  }
  return x;
}

void TransformerStage::forward(const MicroBatch& batch, ConstTensorView input, TensorView output, StepTally& tally) {
  Slot& slot = free_slot(batch.number());
  LayerContext context = this->context(batch, &tally, runtime_->forward);
  const ConstTensorView x =
      run_blocks(batch, first_rows(input, batch.tokens()), first_rows(output, batch.tokens()), slot.saved, context);
  if (parts_.loss == nullptr) return;
  ObjectiveSums sums;
  parts_.loss->forward(x, batch, runtime_->objective, tally.totals(sums), slot.saved, context);
  tally.objective += sums;
}

bool TransformerStage::any_turns() const {
  return std::any_of(parts_.blocks.begin(), parts_.blocks.end(),
                     [](const auto& block) { return !block->keeps_gradient(); });
}

TensorView TransformerStage::gradient_for(std::size_t block, TensorView input_gradient, Slot& slot,
                                          Turns& turns) const {
  // The gradient of what goes into `block`, which is that of what comes out of the one before.
  if (block == 0 && parts_.embedding == nullptr) return input_gradient;
  if (block > 0 && !parts_.blocks[block - 1]->keeps_gradient()) return turns.buffers[turns.next++ % 2];
  const TensorView gradient = slot.arena.take(parts_.activation, slot.shape);
  if (block == 0) slot.embedding_gradient = gradient;
  return gradient;
}

void TransformerStage::backward_input(const MicroBatch& batch, ConstTensorView output_gradient,
                                      TensorView input_gradient, StepTally& tally) {
  Slot& slot = slot_of(batch.number());
  LayerContext context = this->context(batch, &tally, runtime_->backward);
  Arena::Scope scope(context.scratch);
  slot.shape = {batch.tokens(), parts_.hidden};
  Turns turns;
  if (any_turns()) {
    for (TensorView& buffer : turns.buffers) buffer = context.scratch.take(parts_.activation, slot.shape);
  }
  ConstTensorView dy = first_rows(output_gradient, batch.tokens());
  input_gradient = first_rows(input_gradient, batch.tokens());
  if (parts_.loss != nullptr) {
    const TensorView dx = gradient_for(parts_.blocks.size(), input_gradient, slot, turns);
    parts_.loss->backward_input(dx, slot.saved, context);
    dy = dx;
  }
  for (std::size_t i = parts_.blocks.size(); i-- > 0;) {
    const TensorView dx = gradient_for(i, input_gradient, slot, turns);
    parts_.blocks[i]->backward_input(dy, dx, slot.saved, context);
    dy = dx;
  }
}

void TransformerStage::backward_weight(const MicroBatch& batch, StepTally& tally,
                                       const std::function<void(int)>& done) {
  Slot& slot = slot_of(batch.number());
  LayerContext context = this->context(batch, &tally, runtime_->backward);
  int part = 0;
  const auto part_is_done = [&] {
    if (done) done(part++);
  };
  if (parts_.loss != nullptr) {
    parts_.loss->backward_weight(batch, slot.saved, context);
    part_is_done();
  }
  for (std::size_t i = parts_.blocks.size(); i-- > 0;) {
    parts_.blocks[i]->backward_weight(slot.saved, context);
    part_is_done();
  }
  if (parts_.embedding != nullptr) {
    parts_.embedding->backward_weight(batch.inputs(), slot.embedding_gradient, context);
  }
  slot.saved.clear();
  slot.microbatch = -1;
}

std::vector<std::vector<Parameter*>> TransformerStage::gradient_parts() const {
  std::vector<std::vector<Parameter*>> parts;
  if (parts_.loss != nullptr) parts.push_back(parts_.loss->parameters());
  for (const auto& block : std::views::reverse(parts_.blocks)) {
    std::vector<Parameter*>& part = parts.emplace_back(block->parameters());
    for (Linear* linear : block->linears()) {
      for (Parameter* factor : linear->factors()) part.push_back(factor);
    }
  }
  return parts;
}

ConstTensorView TransformerStage::evaluate(const MicroBatch& batch, ConstTensorView input, LossSum* loss,
                                           TensorView output) {
  check(std::all_of(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->microbatch < 0; }),
        "evaluation begins while a micro-batch is in flight");
  Saved& saved = slots_.front()->saved;
  saved.clear();
  LayerContext context = this->context(batch, nullptr, runtime_->forward);
  const ConstTensorView x =
      run_blocks(batch, first_rows(input, batch.tokens()), first_rows(output, batch.tokens()), saved, context);
  if (parts_.loss != nullptr && loss != nullptr) {
    StepTally tally(0, 0, false, runtime_->stream.device());
    ObjectiveSums sums;
    parts_.loss->forward(x, batch, runtime_->next_token, tally.totals(sums), saved, context);
    tally.collect(runtime_->stream);
    sums += tally.objective;
    *loss += sums.main;
  }
  return x;
}

void TransformerStage::prepare(const PrepareContext& context) {
  for (const auto& block : parts_.blocks) block->prepare(context);
  if (parts_.loss != nullptr) parts_.loss->prepare(context);
}

std::int64_t TransformerStage::beside_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& slot : slots_) bytes += slot->saved.beside_bytes();
  return bytes;
}

std::int64_t TransformerStage::saved_peak_bytes() const {
  std::int64_t most = 0;
  for (const auto& slot : slots_) most = std::max(most, slot->arena.peak_bytes());
  return most;
}

}  // namespace shoestring
