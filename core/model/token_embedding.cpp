#include "core/model/token_embedding.h"

#include "kernels/embedding.h"

namespace shoestring {

TokenEmbedding::TokenEmbedding(const ModelConfig& config, Parameter* shared)
    : table_(shared != nullptr ? shared : &own_) {
  if (shared != nullptr) return;
  own_.role = ParameterRole::embedding;
  own_.rows = config.vocabulary;
  own_.columns = config.hidden;
  own_.init_std = config.init_std;
  own_.slices = {{"model.embed_tokens.weight", 0, own_.rows, {own_.rows, own_.columns}}};
}

void TokenEmbedding::allocate() {
  const TensorView gradient = table_->grad;
  if (sums_apart()) sum_ = Tensor(gradient.dtype, gradient.shape, gradient.device);
}

void TokenEmbedding::forward(ConstTensorView ids, TensorView y, LayerContext& context) const {
  embedding_forward({.y = y, .table = table_->value, .ids = ids, .stream = context.stream});
}

void TokenEmbedding::backward_weight(ConstTensorView ids, ConstTensorView dy, LayerContext& context) {
  if (table_->frozen) return;
  const TensorView sum = sums_apart() ? sum_.view() : table_->grad;
  embedding_backward({.dtable = sum, .dy = dy, .ids = ids, .stream = context.stream});
}

std::vector<Parameter*> TokenEmbedding::parameters() {
  if (borrows()) return {};
  return {&own_};
}

}  // namespace shoestring
