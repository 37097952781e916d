// How fast a recipe trains on this machine: steps of the run's own, on its own data, nothing of which is kept.
#pragma once

#include <optional>
#include <string>

#include "core/budget/meter.h"
#include "core/budget/planner.h"
#include "core/recipe/recipe.h"
#include "core/training/seat.h"

namespace shoestring {

/// Collective over the seat's world. Builds model, optimizer and data as `train` does on these ranks, takes two steps
/// of every phase that warm it up and then at least three for about `seconds_per_phase`, times a few held-out
/// micro-batches and questions of suites, and writes nothing. Start-up is counted from the start of the process, the
/// trial itself up to its end. Throws what is wrong with the recipe, its data or its numbers. Nothing where a rank was
/// asked to leave (signals.h): all do, within a micro-batch; Error(preempted) where that was before the first step.
std::optional<Speeds> try_speed(const Recipe& recipe, Seat& seat, const Clock& clock, double seconds_per_phase);

/// What is said of a trial that was left.
std::string left_trial_text(const Recipe& recipe);

}  // namespace shoestring
