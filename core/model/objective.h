// What a model is trained on: a sum over tokens, made from logits a chunk of rows at a time, with its gradient.
//
// The output head makes the logits of some tokens, asks the objective for their loss and gradient, and multiplies back;
// [tokens, vocabulary] never exists. Everything but `rows` is the model's affair, so a new objective (masked,
// distilled, rewarded) is one file: a class like NextToken, and the names of what it reads of a micro-batch besides its
// tokens.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/model/micro_batch.h"
#include "core/model/step_tally.h"
#include "kernels/base/device.h"
#include "kernels/base/tensor.h"

namespace shoestring {

/// The logits of the tokens [begin, begin + rows) of a micro-batch.
struct ObjectiveRows {
  const MicroBatch& batch;
  std::int64_t begin = 0;
  Depth depth = Depth::next;
  ConstTensorView logits;   ///< [rows, vocabulary] f32, or f64 in f64 runs
  ConstTensorView targets;  ///< [rows] i32, those of `depth`; -1: not trained
  /// [rows, vocabulary] in the format of activations, overwritten, zero where a row is not trained. Lies in the memory
  /// of `logits`, each row where its logits begin. Empty: nobody asks for a gradient.
  TensorView dlogits;
  TensorView losses;  ///< [rows] in the format of `logits`: working memory
};

/// Stateless: called from any pass over any micro-batch.
class Objective {
 public:
  virtual ~Objective() = default;
  /// Adds the loss of the rows to `sum` in the order of the rows, and writes its gradient, times weight(depth).
  virtual void rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const = 0;
  /// Factor on the gradient, not on the sum.
  virtual double weight(Depth depth) const = 0;
  /// What a micro-batch must bring besides tokens and targets.
  virtual std::vector<TokenColumn> columns() const { return {}; }
};

/// Cross-entropy of the next token; of the one after it too where the model has multi-token prediction.
class NextToken final : public Objective {
 public:
  explicit NextToken(double further_weight) : further_weight_(further_weight) {}
  void rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const override;
  double weight(Depth depth) const override { return depth == Depth::next ? 1.0 : further_weight_; }

 private:
  double further_weight_;
};

/// The name of a column: how much a token counts, f32.
inline constexpr std::string_view kWeightColumn = "weight";

/// The same with a weight for each token, given by the batch. What is only read (-1) is left out, as everywhere.
class Masked final : public Objective {
 public:
  explicit Masked(double further_weight) : further_weight_(further_weight) {}
  void rows(const ObjectiveRows& rows, const LossTotals& sum, Stream& stream) const override;
  double weight(Depth depth) const override { return depth == Depth::next ? 1.0 : further_weight_; }
  /// A document's tokens weigh alike: then the target of the token after next, which lies in the same document, does.
  std::vector<TokenColumn> columns() const override { return {{std::string(kWeightColumn)}}; }

 private:
  double further_weight_;
};

}  // namespace shoestring
