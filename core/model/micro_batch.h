// The tokens of one micro-batch, where the model reads them: copied once from where they come from.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/layer.h"
#include "kernels/base/staging.h"

namespace shoestring {

/// What an objective reads of each token besides ids and targets: f32 [tokens, width] under a name.
struct TokenColumn {
  std::string name;  ///< "advantage"
  std::int64_t width = 1;
};
struct ColumnView {
  std::string_view name;
  std::span<const float> values;  ///< token by token
};

/// Borrowed tokens of one micro-batch; every span holds the same number, whole sequences behind each other.
struct BatchView {
  std::span<const std::int32_t> inputs;
  std::span<const std::int32_t> targets;        ///< -1: not trained
  std::span<const std::int32_t> segment_start;  ///< flat index of the first token that may be looked at
  std::int64_t sequence = 0;                    ///< tokens per sequence
  std::span<const ColumnView> columns{};        ///< at least those that the objective asks for
  std::int64_t padding = 0;                     ///< of inputs: no text; the model reads it, and nobody counts it
};

/// Which token a target is, seen from its position.
enum class Depth : std::uint8_t {
  next,
  further,  ///< the one after: multi-token prediction
};

/// One micro-batch's own copy, with what follows from it: places in documents, next tokens for multi-token prediction,
/// sequence starts.
class MicroBatch {
 public:
  MicroBatch(const RunShape& most, std::vector<TokenColumn> columns, Device device);
  MicroBatch(const MicroBatch&) = delete;
  MicroBatch& operator=(const MicroBatch&) = delete;

  /// Throws Error(bug) where the batch is larger than what was planned, its spans disagree, or a column is missing.
  void fill(const BatchView& batch, int number, Stream& stream);

  /// As full as it may be, for a dry run: what it holds does not matter.
  void fill_dry();

  /// In its pass.
  int number() const { return number_; }
  std::int64_t tokens() const { return tokens_; }
  const TokenLayout& layout() const { return layout_; }
  /// i32 [tokens], as are the next two.
  ConstTensorView inputs() const { return part(kInputs); }
  /// The token after each one; any valid id where it belongs to another document.
  ConstTensorView next_ids() const { return part(kNextIds); }
  /// -1: not trained, or of another document.
  ConstTensorView targets(Depth depth) const { return part(depth == Depth::next ? kTargets : kNextTargets); }
  /// f32 [tokens, width].
  ConstTensorView column(std::string_view name) const;

 private:
  enum Part { kInputs, kTargets, kSegmentStart, kPositions, kNextIds, kNextTargets, kParts };
  ConstTensorView part(int index) const { return values_.view().slice(0, index * most_.tokens, tokens_); }
  static std::int64_t staged_bytes(const RunShape& most, const std::vector<TokenColumn>& columns);
  std::span<std::int32_t> host(int index);
  void derive(const BatchView& batch);
  void fill_column(std::size_t index, const BatchView& batch, float* here, Stream& stream);

  RunShape most_;
  std::vector<TokenColumn> columns_;
  int number_ = -1;
  std::int64_t tokens_ = 0;
  Staging staging_;
  char* here_ = nullptr;    ///< in host memory: `values_`, `sequence_starts_` and the columns, one behind the other
  Tensor values_;           ///< i32 [kParts * most tokens], each part at its beginning
  Tensor sequence_starts_;  ///< i32 [sequences + 1]
  std::vector<Tensor> column_values_;
  std::vector<std::int32_t> document_starts_;  ///< on the host: each document's first token, then the end
  TokenLayout layout_;
};

}  // namespace shoestring
