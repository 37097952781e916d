// The tokens of micro-batches in flight: copied once from where they come from, kept until the last stage is done.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/model/layer.h"
#include "core/model/loss_head.h"

namespace shoestring {

/// Borrowed tokens of one micro-batch; every span holds the same number, whole sequences behind each other.
struct BatchView {
  std::span<const std::int32_t> inputs;
  std::span<const std::int32_t> targets;        ///< -1: not trained
  std::span<const std::int32_t> segment_start;  ///< flat index of the first token that may be looked at
  std::int64_t sequence = 0;                    ///< tokens per sequence
};

/// One micro-batch's own copy, with what follows from it: places in documents, next tokens for multi-token prediction,
/// sequence starts.
class MicroBatch {
 public:
  explicit MicroBatch(const RunShape& most);
  MicroBatch(const MicroBatch&) = delete;
  MicroBatch& operator=(const MicroBatch&) = delete;

  /// Throws Error(bug) where the batch is larger than what was planned, or its spans disagree.
  void fill(const BatchView& batch);

  std::int64_t tokens() const { return tokens_; }
  ConstTensorView inputs() const { return part(0); }
  const TokenLayout& layout() const { return layout_; }
  const LossInputs& loss_inputs() const { return loss_inputs_; }

  static std::int64_t bytes(const RunShape& most);

 private:
  static constexpr int kParts = 6;  // inputs, targets, segment starts, positions, next ids, next targets
  ConstTensorView part(int index) const;
  std::int32_t* data(int index) { return values_.as<std::int32_t>() + index * most_.tokens; }

  RunShape most_;
  std::int64_t tokens_ = 0;
  Tensor values_;           ///< i32 [kParts, tokens]
  Tensor sequence_starts_;  ///< i32 [sequences + 1]
  TokenLayout layout_;
  LossInputs loss_inputs_;
};

/// The micro-batches that this rank's stages work on.
class MicroBatches {
 public:
  using Source = std::function<BatchView(int microbatch)>;

  /// Every micro-batch is asked for by `stages` stages and released by each.
  MicroBatches(const RunShape& most, int stages) : most_(most), stages_(stages) {}

  /// Asked once per micro-batch, in the order in which the first stage needs them; the view is copied at once.
  void set_source(Source source) { source_ = std::move(source); }
  const MicroBatch& get(int microbatch);
  void release(int microbatch);
  /// A spare one, for evaluation.
  MicroBatch& spare();

 private:
  struct Entry {
    std::unique_ptr<MicroBatch> batch;
    int released = 0;
  };
  std::unique_ptr<MicroBatch> take_free();

  RunShape most_;
  int stages_;
  Source source_;
  std::map<int, Entry> in_flight_;
  std::vector<std::unique_ptr<MicroBatch>> free_;
  std::unique_ptr<MicroBatch> spare_;
};

}  // namespace shoestring
