// The token table. Owns it, or borrows the output head's where embeddings are tied.
#pragma once

#include "core/model/config.h"
#include "core/model/layer.h"

namespace shoestring {

class TokenEmbedding {
 public:
  /// `tied` is the head's table, or nullptr.
  TokenEmbedding(const ModelConfig& config, Parameter* tied);

  /// y [tokens, hidden] = rows of the table; ids [tokens] i32.
  void forward(ConstTensorView ids, TensorView y, LayerContext& context) const;
  /// Adds dy [tokens, hidden] into the table's gradient.
  void backward_weight(ConstTensorView ids, ConstTensorView dy, LayerContext& context);
  /// The parameter if it is this object's own.
  std::vector<Parameter*> parameters();

 private:
  Parameter own_;
  Parameter* table_;
};

}  // namespace shoestring
