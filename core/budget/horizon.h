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
  double remaining_seconds = 0;  ///< CapKeeper::remaining_seconds
  double step_seconds = 0;       ///< StepSeconds::typical; 0: nothing measured yet
  double slow_step_seconds = 0;  ///< StepSeconds::slow: what must be left for the last step to be taken
};

/// A new decision, or nothing if `current` still lands within half a percent of the remaining steps or one step
/// (exactly, over the last twenty), or nothing is measured yet.
std::optional<HorizonDecision> plan_horizon(const HorizonState& state, std::span<const double> phase_ends,
                                            const HorizonDecision* current);

}  // namespace shoestring
