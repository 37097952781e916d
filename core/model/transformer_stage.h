// One stage of a pipeline: a contiguous run of blocks, with the embedding at the model's beginning and the loss at its
// end. What a call needs of a micro-batch comes in with the call; between calls a stage keeps its activations only.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/model/block.h"
#include "core/model/loss_head.h"
#include "core/model/micro_batch.h"
#include "core/model/token_embedding.h"

namespace shoestring {

struct StageParts {
  TokenEmbedding* embedding = nullptr;  ///< of the first stage
  std::vector<std::unique_ptr<Block>> blocks;
  LossHead* loss = nullptr;  ///< of the last stage
  std::int64_t hidden = 0;
  DType activation = DType::f32;
};

/// Memory of one call at a time.
struct StageScratch {
  Arena& planned;
  Arena& growing;
};

/// What all stages of a rank share while they run. Forward and backward have the same scratch unless they take turns.
struct StageRuntime {
  StageScratch forward;
  StageScratch backward;
  Stream& stream;
  const Objective& objective;   ///< of training
  const Objective& next_token;  ///< of evaluation, whatever is trained
};

/// Views are as parallel's Stage has them: empty where there is no neighbour.
class TransformerStage {
 public:
  explicit TransformerStage(StageParts parts);

  /// Memory for `in_flight` micro-batches, of `saved_bytes` each; before the first call.
  void allocate(std::int64_t saved_bytes, int in_flight, const StageRuntime& runtime);

  /// `tally` gets what this call adds up; the last stage's is the objective. `batch` must stay as it is until
  /// backward_weight has returned.
  void forward(const MicroBatch& batch, ConstTensorView input, TensorView output, StepTally& tally);
  void backward_input(const MicroBatch& batch, ConstTensorView output_gradient, TensorView input_gradient,
                      StepTally& tally);
  /// Tells `done` of each of gradient_parts(), in their order, when this micro-batch has added to the last of it.
  void backward_weight(const MicroBatch& batch, StepTally& tally, const std::function<void(int)>& done = {});
  /// The parameters that have their gradients from this stage alone: not token tables and the output head, whose
  /// users may be several.
  std::vector<std::vector<Parameter*>> gradient_parts() const;

  /// Forward without a backward pass, while nothing is in flight. The hidden state after the blocks, valid until the
  /// next call, and written into `output` where it is not empty; in the last stage the loss of the next token is added
  /// to `loss` unless that is nullptr.
  ConstTensorView evaluate(const MicroBatch& batch, ConstTensorView input, LossSum* loss, TensorView output = {});

  std::span<const std::unique_ptr<Block>> blocks() const { return parts_.blocks; }
  /// What it is made of, for who runs layers in another way (cached_forward.h).
  const StageParts& parts() const { return parts_; }
  void prepare(const PrepareContext& context);
  /// The most that any micro-batch has taken.
  std::int64_t saved_peak_bytes() const;
  /// What all micro-batches together have beside their arenas.
  std::int64_t beside_bytes() const;

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
  /// `tally` nullptr: an evaluation.
  LayerContext context(const MicroBatch& batch, StepTally* tally, const StageScratch& scratch) const;
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
