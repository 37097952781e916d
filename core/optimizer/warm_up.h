// Whether the warm-ups of a run come to their end. There is one from its first step on, and another from the first step
// of each phase that begins with weights of its own (phase.NAME.from) or trains others (phase.NAME.lora).
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "core/recipe/recipe.h"

namespace shoestring {

/// Steps of a phase until `share` of it, in [0, 1], is behind.
using PhaseSteps = std::function<double(std::size_t phase, double share)>;

/// So many steps, over the phases as progress is (phase_ends).
PhaseSteps spread_over_phases(const Recipe& recipe, double steps);

/// Why some warm-up never comes to its peak rate, since its phases or the time before the decay are shorter, and what
/// to write instead; empty where all do.
std::string unfinished_warmup(const Recipe& recipe, const PhaseSteps& steps);

}  // namespace shoestring
