// Multi-token prediction of depth 1: one more block that predicts the token after next.
//
//   z[t] = eh_proj [ enorm(embedding(id[t + 1])) | hnorm(h[t]) ];   loss of head(norm(block(z))) against target[t + 1]
//
// h is the main model's normed output, embedding and head are the main model's own. A position has a target only where
// the next token belongs to the same document. The order of the two halves is that of the published weights (the paper
// prints the reverse). Source: DeepSeek-V3 (arXiv 2412.19437), section 2.2.
#pragma once

#include "core/model/block.h"
#include "core/model/output_head.h"
#include "core/model/token_embedding.h"

namespace shoestring {

class MultiTokenPrediction {
 public:
  /// `embedding` and `head` must outlive it. Its tensors are named as layer `config.layers`.
  MultiTokenPrediction(const ModelConfig& config, const PrecisionSpec& precision, const RopeTable& rope,
                       TokenEmbedding& embedding, OutputHead& head, const ExpertShare& share = {});

  /// `h` [tokens, hidden] must stay until backward_input.
  void forward(ConstTensorView h, const MicroBatch& batch, const Objective& objective, const LossTotals& totals,
               Saved& saved, LayerContext& context);
  /// Adds to dh.
  void backward_input(TensorView dh, Saved& saved, LayerContext& context);
  void backward_weight(const MicroBatch& batch, Saved& saved, LayerContext& context);

  std::vector<Parameter*> parameters();
  Block& block() { return block_; }
  void prepare(const PrepareContext& context);

 private:
  struct Record {
    TensorView embedded;  ///< [tokens, hidden], and so the rest
    TensorView block_in;
    TensorView block_out;
    TensorView dnormed;  ///< gradient of the shared head's input
    TensorView dembedded;
  };
  TensorView take(bool saved_too, std::int64_t tokens, std::int64_t columns, Saved& saved, LayerContext& context) const;

  std::int64_t hidden_;
  DType activation_;
  TokenEmbedding& embedding_;
  OutputHead& head_;
  Norm embedding_norm_;
  Norm hidden_norm_;
  Linear join_;
  Block block_;
  Norm head_norm_;
};

}  // namespace shoestring
