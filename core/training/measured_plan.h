// A plan from steps really taken on the ranks that would run it. The time it takes is charged to the run, as an attempt
// of its own; the plan is kept beside the ledger, for the report.
#pragma once

#include "core/budget/hardware.h"
#include "core/budget/price.h"
#include "core/training/speed_trial.h"

namespace shoestring {

struct MeasuredPlan {
  Plan plan;
  Speeds speeds;
  double seconds_per_phase = 0;  ///< that steps were taken for, at least
  bool begun = false;            ///< the run has begun: the plan is not kept, since a plan is made before the run
};

/// Steps of a trial are taken for two minutes at most, and for at most this share of the cap.
inline constexpr double kTrialShareOfCap = 0.005;

/// Seconds per phase for a trial of which `wanted` were asked for.
double trial_seconds(const Recipe& recipe, const Cap& cap, int ranks, double wanted);

/// Collective; the first rank keeps ledger and plan, and ranks are watched as in training. Throws what Seat throws,
/// before the ledger knows of anything, what Watch::begin, try_speed and Ledger throw, and Error(budget_spent)
/// where nothing of the cap is left, Error(preempted) where the trial was left as asked: no plan is kept.
MeasuredPlan measure_plan(const Recipe& recipe, const Hardware& hardware, Communicator& world, const Clock& clock,
                          double wanted_seconds);

}  // namespace shoestring
