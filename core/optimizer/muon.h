// What Muon moves, where it is the optimizer: the weights of projections, and the factors of adapters.
//
// A and B of an adapter are orthogonalised each by itself. Open weights mostly come from AdamW, and moving all of them
// by Muon afterwards costs quality; of adapters on them the same study has Muon equal or ahead (Qu et al., "Can Muon
// fine-tune Adam-pretrained models?", arXiv 2605.10468). Singular values of B A then grow at one pace, which converges
// (arXiv 2602.06385). B begins with zeros, so A's first gradient is zero, and so is its update.
#pragma once

#include "core/model/parameter.h"
#include "core/recipe/recipe.h"

namespace shoestring {

inline bool moved_by_muon(OptimizerName optimizer, const Parameter& parameter) {
  const bool matrix = parameter.role == ParameterRole::matrix || parameter.role == ParameterRole::factor;
  return optimizer == OptimizerName::muon && matrix;
}

}  // namespace shoestring
