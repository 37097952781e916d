// Whether a recipe's model trains the same under every layout: a small model of its family, in its precision, with its
// optimizer, takes a few steps as one process and as the ranks of each layout, and everything is compared to the bit.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/training/layout.h"

namespace shoestring {

struct VerifiedLayout {
  MeshShape shape;
  ScheduleName schedule = ScheduleName::one_f_one_b;
  std::string difference;  ///< the first step and tensor that differ, "step 2 gradient model.norm.weight"; empty: none
};

/// The recipe made small: eight layers of its architecture, few heads and experts, its precision, optimizer and
/// balancing; batches of made tokens.
Recipe small_twin(const Recipe& recipe);

/// Runs `steps` steps of small_twin(recipe) under each layout of at most `most_ranks` ranks (pipelines of 1, 2 and 4,
/// data axes of 1, 2 and 4, every schedule), ranks as threads of this process, and tells `done` of each. Throws what is
/// wrong with the recipe.
std::vector<VerifiedLayout> verify_layouts(const Recipe& recipe, int steps, int most_ranks,
                                           const std::function<void(const VerifiedLayout&)>& done);

}  // namespace shoestring
