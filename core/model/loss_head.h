// The end of the model: final norm, output head, loss, and multi-token prediction where the model has it.
#pragma once

#include <memory>

#include "core/model/multi_token_prediction.h"
#include "core/model/norm.h"
#include "core/model/output_head.h"

namespace shoestring {

class LossHead {
 public:
  /// `embedding` looks up for multi-token prediction; nullptr where the model has none.
  LossHead(const ModelConfig& config, const PrecisionSpec& precision, const RopeTable& rope, OutputHead& head,
           TokenEmbedding* embedding, const ExpertShare& share = {});

  /// x [tokens, hidden] must stay until backward_input. The loss is added to `totals`; in training, that of multi-token
  /// prediction too; the output head's weight gradient is added here, since it needs what a chunk of logits needs.
  void forward(ConstTensorView x, const MicroBatch& batch, const Objective& objective, const ObjectiveTotals& totals,
               Saved& saved, LayerContext& context);
  void backward_input(TensorView dx, Saved& saved, LayerContext& context);
  void backward_weight(const MicroBatch& batch, Saved& saved, LayerContext& context);
  /// Logits of rows of x, f32 (f64) [rows, vocabulary].
  void logits(ConstTensorView x, TensorView logits, Saved& saved, LayerContext& context);

  std::vector<Parameter*> parameters();
  MultiTokenPrediction* further() { return further_.get(); }
  void prepare(const PrepareContext& context);

 private:
  struct Record {
    TensorView dnormed;  ///< [tokens, hidden]
  };

  std::int64_t hidden_;
  DType activation_;
  OutputHead& head_;
  Norm norm_;
  std::unique_ptr<MultiTokenPrediction> further_;
};

}  // namespace shoestring
