// The output projection and the objective over its logits. [tokens, vocabulary] never exists: rows are worked on in
// chunks, and each chunk's loss, input gradient and weight gradient are done before the next begins.
//
// Low-precision policies leave the head in BF16. Losses and gradients are sums over tokens.
#pragma once

#include <cstdint>

#include "core/model/config.h"
#include "core/model/linear.h"
#include "core/model/objective.h"

namespace shoestring {

class OutputHead {
 public:
  /// Owns the [vocabulary, hidden] table: "lm_head.weight", or with tied embeddings "model.embed_tokens.weight".
  OutputHead(const ModelConfig& config, const PrecisionSpec& precision);

  struct LossArgs {
    ConstTensorView x;  ///< [tokens, hidden], normed
    const MicroBatch& batch;
    const Objective& objective;
    LossTotals totals;
    Depth depth = Depth::next;
    TensorView dx;  ///< [tokens, hidden], overwritten; empty: evaluation
  };
  /// Adds the loss to `totals`; with `dx`, gives the input gradient and adds the weight gradient.
  void loss(const LossArgs& args, Saved& saved, LayerContext& context);
  /// logits [tokens, vocabulary] f32 (f64 in f64 runs), overwritten.
  void logits(ConstTensorView x, TensorView logits, Saved& saved, LayerContext& context);

  Parameter& weight() { return linear_.weight; }
  void prepare(const PrepareContext& context) { linear_.prepare(context); }

 private:
  std::int64_t most_rows() const;
  std::int64_t chunk_rows(std::int64_t tokens) const;

  std::int64_t vocabulary_;
  DType activation_;
  DType logits_dtype_;
  Linear linear_;
};

}  // namespace shoestring
