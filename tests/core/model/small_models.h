// Small models of every architecture and batches with documents inside, for tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/model/transformer.h"
#include "kernels/base/workers.h"

namespace shoestring::testing {

/// A model of a few thousand weights whose extents differ from each other, so that swapped ones do not fit.
ModelSpec small_spec(Architecture architecture);
ModelConfig small_config(Architecture architecture);
/// The same shapes in multiples of 128, for FP8 tiles and packed panels.
ModelConfig tiled_config(Architecture architecture);

/// Tokens of `sequences` sequences, each cut into documents; some targets are not trained.
struct SmallBatch {
  SmallBatch(std::int64_t vocabulary, std::int64_t sequences, std::int64_t sequence, std::uint64_t seed);
  BatchView view() const { return {inputs, targets, segment_start, sequence_length, columns}; }

  std::int64_t sequence_length;
  std::vector<std::int32_t> inputs, targets, segment_start;
  std::vector<ColumnView> columns;  ///< none, unless a test adds some
};

/// A model with memory and first values, and a batch to run it on.
class SmallRun {
 public:
  SmallRun(const ModelConfig& config, const PrecisionSpec& precision, int stages = 1, std::int64_t sequences = 2,
           std::int64_t sequence = 12, int workers = 1, const Objective* objective = nullptr,
           const ExpertShare& share = {}, const LoraSpec& lora = {});

  /// Forward, backward and weight gradients of the batch; gradients are cleared first. `done` is told of stages and of
  /// the parts of their gradients.
  StepTally step(const std::function<void(std::size_t, int)>& done = {});
  /// Main loss, weighted further loss and balance loss of a step.
  double total_loss();
  /// Memory for another micro-batch, filled.
  std::unique_ptr<MicroBatch> micro_batch(const BatchView& view, int number);
  Parameter& parameter(const std::string& slice_name);

  Workers workers;
  Stream stream;
  SmallBatch batch;
  Transformer model;
};

PrecisionSpec policy(PrecisionPolicy policy);

}  // namespace shoestring::testing
