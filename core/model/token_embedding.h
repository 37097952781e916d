// Look-ups in a token table: at the beginning of the model, and of the next token in multi-token prediction.
//
// One table may have several users: look-ups at both ends of the model, and the output head where embeddings are tied.
// A schedule decides whose turn comes first, and on a pipeline they may stand on two ranks. So that no gradient's bits
// depend on either, only one user adds into the table's gradient itself; each of the others, who borrow the table, has
// a sum of its own, and the sums are put together when a pass is over (Transformer::join_shared_gradients).
#pragma once

#include "core/model/config.h"
#include "core/model/layer.h"

namespace shoestring {

class TokenEmbedding {
 public:
  /// Looks up in `shared`, another user's table; nullptr: in one of its own.
  TokenEmbedding(const ModelConfig& config, Parameter* shared);

  /// Memory for the sum of one who sums apart; after the table has its own.
  void allocate();

  /// y [tokens, hidden] = rows of the table; ids [tokens] i32.
  void forward(ConstTensorView ids, TensorView y, LayerContext& context) const;
  /// Adds dy [tokens, hidden] into the table's gradient, or into the sum of its own.
  void backward_weight(ConstTensorView ids, ConstTensorView dy, LayerContext& context);
  /// The parameter if it is this object's own.
  std::vector<Parameter*> parameters();
  Parameter& table() { return *table_; }
  bool borrows() const { return table_ != &own_; }
  /// Whether it has a sum of its own: who borrows a table that is trained.
  bool sums_apart() const { return borrows() && !table_->frozen; }
  /// [vocabulary, hidden], of one who sums apart.
  TensorView own_sum() { return sum_.view(); }

 private:
  Parameter own_;
  Parameter* table_;
  Tensor sum_;
};

}  // namespace shoestring
