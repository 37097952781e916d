// How fast a recipe trains on this machine: steps of the run's own, on its own data, nothing of which is kept.
#pragma once

#include "core/budget/meter.h"
#include "core/budget/planner.h"
#include "core/recipe/recipe.h"

namespace shoestring {

/// Builds model, optimizer and data as `train` does on one rank, takes two steps of every phase that warm it up and
/// then at least three for about `seconds_per_phase`, times a few held-out micro-batches, and writes nothing. Start-up
/// is counted from the start of the process. Throws what is wrong with the recipe, its data or its numbers.
Speeds try_speed(const Recipe& recipe, const Clock& clock, double seconds_per_phase);

}  // namespace shoestring
