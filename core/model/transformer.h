// A whole model, or this rank's stages of it: weights, and stages for the pipeline. It keeps no data and no statistic:
// micro-batches come in with each call, sums go out through the caller's tally.
//
//   Transformer model(options);          // declares parameters; takes no memory, so any model can be declared
//   model.allocate(stream);              // memory, as model.memory() says
//   model.initialise(seed);              // or a checkpoint's loader fills parameters()
//   model.prepare();                     // after every change of the weights (prepare_trained: after a step)
//   StepTally tally = model.tally();     // then model.stages() forward and backward (core/training/pass):
//                                        // gradients add up in store().gradients, losses and loads in the tally
//
// Everything is a sum over tokens: the optimizer divides by the global number of trained tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/transformer_stage.h"
#include "kernels/rope.h"
#include "parallel/pipeline.h"

namespace shoestring {

struct TransformerOptions {
  ModelConfig model;
  PrecisionSpec precision;
  RunShape run;                                 ///< the largest micro-batch; `workers` as the stream has
  int stages = 1;                               ///< of the whole pipeline
  std::vector<std::int64_t> stage_layers = {};  ///< of each stage; empty: as even as they divide (stage_blocks)
  std::vector<int> own_stages;                  ///< this rank's, in order; empty: all
  std::vector<int> in_flight = {};              ///< micro-batches that each of own_stages holds at most; empty: 1
  bool count_precision = true;                  ///< saturation and underflow counts
  bool trains = true;     ///< false: no gradients, and no memory for activations in flight (in_flight 0 everywhere)
  ExpertShare experts{};  ///< of every mixture; its exchange outlives the model
  LoraSpec lora{};        ///< with a rank: all weights are frozen, and adapters are trained
  /// What is trained; outlives the model. nullptr: the next token, with the model's weight for the one after.
  const Objective* objective = nullptr;
};

/// Bytes by purpose. `total` is what training holds, without the optimizer's moments.
struct ModelMemory {
  std::int64_t parameters = 0;
  std::int64_t gradients = 0;
  std::int64_t prepared = 0;  ///< compute copies: quantised and packed weights
  std::int64_t saved = 0;     ///< activations of all micro-batches in flight
  std::int64_t scratch = 0;   ///< of both, what ranks that share experts receive counts as if loads were even
  std::int64_t tables = 0;    ///< RoPE tables, tokens, a tally
  std::int64_t total() const { return parameters + gradients + prepared + saved + scratch + tables; }
};

/// A tensor that a checkpoint holds a second time under another name.
struct TensorAlias {
  std::string name;
  std::string of;
};

/// The blocks [begin, end) of each stage: contiguous, the earlier stages longer by one where it does not divide.
struct StageBlocks {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
StageBlocks stage_blocks(std::int64_t layers, int stages, int stage);

class Transformer {
 public:
  explicit Transformer(TransformerOptions options);
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  const TransformerOptions& options() const { return options_; }
  const ModelConfig& config() const { return options_.model; }
  const PrecisionSpec& precision() const { return options_.precision; }
  /// Found by a dry run (kernels/base/memory.h): a twin of this model takes its part in a step.
  ModelMemory memory() const;
  /// Where it lies, or will.
  DeviceKind device_kind() const { return stream_ != nullptr ? stream_->device().kind : options_.run.device; }
  /// In the order of the model; valid before `allocate`, without memory then.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  /// Whether this rank's parameter repeats another stage's: the token table at the end of the model that multi-token
  /// prediction looks up in, the one at its beginning where embeddings are tied. Both are moved alike; the other
  /// counts.
  bool is_copy(const Parameter& parameter) const { return &parameter == copy_; }
  /// Whether, of the ranks that hold the model together, this one speaks for a parameter: where they share the experts,
  /// each has its own of these, and the first of them all that is dense.
  bool speaks_for(const Parameter& parameter) const {
    return !is_copy(parameter) && (parameter.of_experts() || options_.experts.rank == 0);
  }
  const ExpertShare& experts() const { return options_.experts; }
  /// The same model with all of its stages, declared only.
  std::unique_ptr<Transformer> whole() const;
  /// Names that Hugging Face readers expect beside those of the parameters (multi-token prediction's copies).
  std::vector<TensorAlias> aliases() const;

  /// Once, and what `memory` says, wherever `stream` is. It must outlive the model and have `run.workers` workers.
  void allocate(Stream& stream);
  ParameterStore& store();
  Stream& stream() { return *stream_; }
  /// Normal with each parameter's deviation: a function of the seed and the tensor's disk name alone, so that no layout
  /// changes it. `drawn` hears how many elements of all there are; what it throws leaves weights of no use.
  void initialise(std::uint64_t seed, const std::function<void(std::int64_t done, std::int64_t all)>& drawn = nullptr);
  /// The same of adapters alone: what they adapt comes from elsewhere.
  void initialise_factors(std::uint64_t seed);
  /// When every micro-batch of a pass is through: puts together what the users of one token table have summed up, in
  /// one order, (head, look-ups at the beginning, look-ups of multi-token prediction), wherever they stand. Collective
  /// over `pipeline`, whose ranks `first` and `last` hold the first and the last stage.
  void join_shared_gradients(Communicator& pipeline, int first, int last);
  /// Begins a new sum: afterwards every gradient is zero or stale (see Parameter).
  void zero_gradients();
  /// Refreshes the compute copies.
  void prepare();
  /// The same where only what is trained has moved since: the compute copies of frozen weights stay.
  void prepare_trained();
  /// What the quantisation lost of the present compute copies that this rank speaks for; zero where precision is not
  /// counted. On a device they are there when the stream has been waited for since.
  QuantizeCounts weight_counts();

  /// This rank's, in order.
  std::span<const std::unique_ptr<TransformerStage>> stages() const { return stages_; }
  /// What passes between stages.
  Boundary boundary() const;
  /// An empty one, of the whole model's mixtures; what is not of this rank stays zero.
  StepTally tally() const;
  /// Memory for the tokens of one micro-batch in flight.
  std::unique_ptr<MicroBatch> make_micro_batch() const;
  /// The same for evaluation: the next token, whatever the objective.
  std::unique_ptr<MicroBatch> make_plain_micro_batch() const;

  /// Forward of the whole model, every stage on this rank, while nothing is in flight. The loss of the next token,
  /// whatever the objective.
  LossSum evaluate(const BatchView& batch);

  /// Moves the selection biases by `speed` along the sign of the load error of `global_counts`, i64 [mixtures of the
  /// whole model, experts].
  void update_router_biases(ConstTensorView global_counts, double speed);

  /// What was really used of `memory().scratch`, and by one micro-batch of `memory().saved`.
  std::int64_t scratch_peak_bytes() const { return scratch_.peak_bytes() + turn_scratch_.peak_bytes(); }
  std::int64_t saved_peak_bytes() const;
  /// What mixtures whose experts are shared have taken beside both: as much as their loads ever asked for.
  std::int64_t grown_bytes() const;

 private:
  void build_stages();
  void adapt();
  void collect_parameters();
  std::vector<MixtureOfExperts*> mixtures_of(const TransformerStage& stage) const;
  bool owns(int stage) const;
  StageBlocks blocks_of(int stage) const;
  /// What a dry run finds.
  struct Needs {
    ModelMemory memory;
    std::int64_t scratch = 0;
    std::int64_t turn_scratch = 0;
    std::vector<std::int64_t> saved;  ///< by one micro-batch in each stage
  };
  Needs needs(DeviceKind kind) const;
  void step_dry(TransformerStage& stage, const MicroBatch& batch);
  void add_from(Communicator& pipeline, int peer, ConstTensorView sent, TensorView sum);

  const Objective& objective() const { return options_.objective != nullptr ? *options_.objective : next_token_; }

  TransformerOptions options_;
  NextToken next_token_;
  RopeTable rope_;
  std::unique_ptr<OutputHead> head_;
  std::unique_ptr<TokenEmbedding> embedding_;  ///< of the first stage
  std::unique_ptr<TokenEmbedding> further_;    ///< of the last, for multi-token prediction
  Parameter* copy_ = nullptr;
  std::unique_ptr<LossHead> loss_;
  std::vector<std::unique_ptr<TransformerStage>> stages_;
  std::vector<Parameter*> parameters_;
  std::vector<MixtureOfExperts*> mixtures_;

  Stream* stream_ = nullptr;
  std::unique_ptr<ParameterStore> store_;
  Arena scratch_;
  Arena growing_;
  Arena turn_scratch_;  ///< of backward calls that take turns with forward ones
  Arena turn_growing_;
  std::unique_ptr<StepTally> weight_counts_;  ///< where prepare counts, if it does
  Storage counts_sent_;                       ///< what it counted
  Tensor router_counts_;                      ///< on a device
  std::unique_ptr<MicroBatch> looked_at_;     ///< by evaluate
  std::unique_ptr<StageRuntime> runtime_;
};

}  // namespace shoestring
