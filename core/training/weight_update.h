// One update of the weights from the summed gradient of a global batch: judge, clip, move, refresh.
#pragma once

#include <cstdint>

#include "core/model/transformer.h"
#include "core/optimizer/optimizer.h"
#include "core/recipe/recipe.h"
#include "core/training/guard.h"
#include "core/training/pass.h"

namespace shoestring {

struct WeightUpdateArgs {
  const Recipe& recipe;
  const PassResult& batch;  ///< its gradient is in model.store().gradients
  std::int64_t number;      ///< of the update, from 1
  double learning_rate;
  bool may_go_back = false;  ///< see Guard::judge
};

struct WeightUpdate {
  double loss = 0;           ///< mean over the trained tokens
  double gradient_norm = 0;  ///< of the mean gradient, before clipping
  Judgement judgement;       ///< the weights moved if its verdict is apply
  QuantizeCounts weights;    ///< what quantising the moved weights lost
};

/// Moves the weights unless `guard` objects, then the router biases, and makes the compute copies anew.
WeightUpdate update_weights(const WeightUpdateArgs& args, Transformer& model, Optimizer& optimizer, Guard& guard,
                            Stream& stream);

}  // namespace shoestring
