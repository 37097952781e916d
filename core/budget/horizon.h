// Lands the schedule on the budget. Progress runs from 0 to 1 over the run; the learning rate and the phases are
// functions of it. With horizon = budget its slope is re-planned from measured speed; each such decision goes into the
// ledger, and progress is a function of the decisions alone, so a replay gives the same bits.
//
// Between decisions progress is linear in steps:
//   progress(k) = d.progress + (d.end_progress - d.progress) * (k - d.step) / (d.end_step - d.step)
// so it is continuous and rising over re-plans, at any speed and through restarts. With horizon = tokens or steps the
// same type serves, with one decision per phase made from the recipe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

class StepSeconds;

struct HorizonDecision {
  std::int64_t step = 0;      ///< first step it holds for
  double progress = 0;        ///< before that step
  std::int64_t end_step = 0;  ///< steps done when the phase ends, > step
  double end_progress = 1;    ///< progress there: the phase's cumulative share
  int phase = 0;              ///< index into Recipe::phases

  bool operator==(const HorizonDecision&) const = default;
};

/// Steps of the whole horizon, should they all come as those of this phase.
std::int64_t steps_in_all(const HorizonDecision& decision);

/// Progress before step `step` (0 without decisions), at most the last decision's end_progress.
double progress_at(std::span<const HorizonDecision> decisions, std::int64_t step);

/// Cumulative end of each phase on the progress scale: normalised shares, tokens or steps by the recipe's horizon.
std::vector<double> phase_ends(const Recipe& recipe);

/// What the plan is made from.
struct HorizonState {
  std::int64_t step = 0;  ///< steps done
  double progress = 0;
  int phase = 0;
  double remaining_seconds = 0;  ///< CapKeeper::surely_remaining_of_cap
  double pause_seconds = 0;      ///< between steps, per step: evaluations and checkpoints on the way
  const StepSeconds& steps;      ///< that were taken by this attempt
};

/// A new decision, or nothing if `current` still lands, or too little is measured yet.
///
/// The last phase aims to be early: the cap cuts a run off, and a run that is cut off before its rate has come down has
/// wasted its decay, while steps that are left over are taken at the final rate. So its end is where steps can be
/// relied upon to come to before the last one (StepSeconds::surely_within), and a plan whose end has been reached
/// stays. `current` is kept where it ends by less than half a percent of the remaining steps too late (one step at
/// least), or two percent too early.
std::optional<HorizonDecision> plan_horizon(const HorizonState& state, std::span<const double> phase_ends,
                                            const HorizonDecision* current);

}  // namespace shoestring
