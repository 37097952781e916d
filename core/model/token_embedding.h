// The token table. Owns it, or borrows the output head's where embeddings are tied.
//
// A tied table gets gradients from two paths: the head's in forward, the look-up's in backward_weight. They add up in
// the order of the calls, so with several micro-batches in flight its bits depend on the schedule.
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
