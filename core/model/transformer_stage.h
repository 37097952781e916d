// One stage of a pipeline: a contiguous run of blocks, with the embedding at the model's beginning and the loss at its
// end.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/model/block.h"
#include "core/model/loss_head.h"
#include "core/model/micro_batch.h"
#include "core/model/token_embedding.h"
#include "parallel/pipeline.h"

namespace shoestring {

struct StageParts {
  TokenEmbedding* embedding = nullptr;  ///< of the first stage
  std::vector<std::unique_ptr<Block>> blocks;
  LossHead* loss = nullptr;  ///< of the last stage
  std::int64_t hidden = 0;
  DType activation = DType::f32;
};

/// What all stages of a rank share while they run.
struct StageRuntime {
  MicroBatches& batches;
  Arena& scratch;
  Stream& stream;
  LossSums& losses;                   ///< added to by the last stage
  PrecisionCounts* counts = nullptr;  ///< nullptr: not counted
  bool training = true;  ///< false: `forward` is all there is of a micro-batch, and adds to the losses only
};

class TransformerStage final : public Stage {
 public:
  explicit TransformerStage(StageParts parts);

  /// Memory for `in_flight` micro-batches; before the first call.
  void allocate(const RunShape& run, int in_flight, const StageRuntime& runtime);

  void forward(int microbatch, ConstTensorView input, TensorView output) override;
  void backward_input(int microbatch, ConstTensorView output_gradient, TensorView input_gradient) override;
  void backward_weight(int microbatch) override;

  /// Forward without a backward pass. The hidden state after the blocks, valid until the next call; in the last stage
  /// the loss is added to `losses` unless that is nullptr.
  ConstTensorView evaluate(const MicroBatch& batch, ConstTensorView input, LossSums* losses);
  /// Logits of row `row` of what evaluate returned; last stage only.
  void logits(const MicroBatch& batch, ConstTensorView hidden, std::int64_t row, TensorView logits);

  std::span<const std::unique_ptr<Block>> blocks() const { return parts_.blocks; }
  void prepare(const PrepareContext& context);
  std::int64_t saved_bytes(const RunShape& run) const;
  std::int64_t scratch_bytes(const RunShape& run) const;
  std::int64_t prepared_bytes() const;
  /// The most that any micro-batch has taken.
  std::int64_t saved_peak_bytes() const;

 private:
  /// The activations of one micro-batch in flight.
  struct Slot {
    explicit Slot(std::int64_t bytes, Device device) : arena(bytes, device), saved(arena) {}
    Arena arena;
    Saved saved;
    int microbatch = -1;
    Shape shape;                    ///< [tokens, hidden]
    TensorView embedding_gradient;  ///< first stage: of `shape`
  };
  Slot& slot_of(int microbatch);
  Slot& free_slot(int microbatch);
  void end(Slot& slot);
  LayerContext context(const MicroBatch& batch, bool training) const;
  ConstTensorView run_blocks(const MicroBatch& batch, ConstTensorView input, TensorView output, Saved& saved,
                             LayerContext& context);
  /// Gradients between blocks that nobody reads later take turns in two buffers.
  struct Turns {
    TensorView buffers[2];
    int next = 0;
  };
  TensorView gradient_for(std::size_t block, TensorView input_gradient, Slot& slot, Turns& turns) const;
  bool any_turns() const;

  StageParts parts_;
  std::vector<std::unique_ptr<Slot>> slots_;
  const StageRuntime* runtime_ = nullptr;
};

}  // namespace shoestring
