#include "core/model/token_embedding.h"

#include "kernels/embedding.h"

namespace shoestring {

TokenEmbedding::TokenEmbedding(const ModelConfig& config, Parameter* tied) : table_(tied != nullptr ? tied : &own_) {
  if (tied != nullptr) return;
  own_.role = ParameterRole::embedding;
  own_.rows = config.vocabulary;
  own_.columns = config.hidden;
  own_.init_std = config.init_std;
  own_.slices = {{"model.embed_tokens.weight", 0, own_.rows, {own_.rows, own_.columns}}};
}

void TokenEmbedding::forward(ConstTensorView ids, TensorView y, LayerContext& context) const {
  embedding_forward({.y = y, .table = table_->value, .ids = ids, .stream = context.stream});
}

void TokenEmbedding::backward_weight(ConstTensorView ids, ConstTensorView dy, LayerContext& context) {
  embedding_backward({.dtable = table_->grad, .dy = dy, .ids = ids, .stream = context.stream});
}

std::vector<Parameter*> TokenEmbedding::parameters() {
  if (table_ != &own_) return {};
  return {&own_};
}

}  // namespace shoestring
