// What must hold between keys, beyond each key's own type and bounds (those are in keys.cpp).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/parse.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// In parallel.stages, instead of layers: the pipeline is cut by what its layers are measured to take.
inline constexpr std::string_view kMeasuredStages = "measured";
inline bool stages_are_measured(const ParallelSpec& parallel) {
  return parallel.stages.size() == 1 && parallel.stages.front() == kMeasuredStages;
}

/// Every contradiction in `recipe`. A rule is skipped when one of its keys is already in `wrong` (dotted names): its
/// value is not what the writer meant. Without `schedule` check_schedule is left out: a run that has been trained
/// stands.
std::vector<Mistake> validate(const Recipe& recipe, const Origins& origins, const std::vector<Mistake>& wrong = {},
                              bool schedule = true);

/// `recipe` with the defaults of all keys that nothing reads because of what another key says (check_unread_keys): it
/// trains the same.
Recipe without_unread_keys(Recipe recipe);

/// What evaluation.every_steps and evaluation.tokens say where no phase has held-out data, which may come with another
/// data set: nothing is evaluated then. Empty where there is some, or neither is given.
std::string held_out_caveat(const Recipe& recipe);

}  // namespace shoestring
