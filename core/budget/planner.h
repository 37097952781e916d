// What a run will cost and buy, foretold before it from speeds that a trial measured (core/training/speed_trial.h).
// Stored as plan.json in the run directory; the report sets it beside what came.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/budget/meter.h"
#include "core/recipe/recipe.h"

namespace shoestring {

inline constexpr std::string_view kPlanFile = "plan.json";
inline constexpr std::string_view kPlanSchema = "shoestring.plan/1";

/// One phase, in wall-clock seconds: all ranks go side by side.
struct PhaseSpeed {
  double step_seconds = 0;        ///< usual, at the full global batch
  double tokens_per_step = 0;     ///< of text, learned or not; of all ranks
  double evaluation_seconds = 0;  ///< of all held-out tokens that the recipe asks for; 0: none
  double suites_seconds = 0;      ///< of the questions at the end of the phase, all of them; 0: none
  double guess_seconds = 0;       ///< that foretelling both takes: a run does it too
  CategorySeconds parts = {};     ///< of a step, mean over ranks; nothing: not taken apart, all of it is computing
};

struct Speeds {
  int ranks = 1;
  double trial_seconds = 0;  ///< that the trial itself was charged, wall-clock, mean of the ranks
  double startup_seconds = 0;
  double checkpoint_seconds = 0;
  std::vector<PhaseSpeed> phases;  ///< as in the recipe
};

struct PlannedPhase {
  std::string name;
  double tokens = 0;
  double steps = 0;
  double gpu_hours = 0;  ///< evaluations and checkpoints on the way included
};

struct Plan {
  std::vector<PlannedPhase> phases;
  double around_gpu_hours = 0;  ///< trial, start, last evaluation, suites and what foretells both, last checkpoint
  CategorySeconds seconds;      ///< of all ranks: what the GPU-hours go to; the trial is part of the start
  bool cut_short = false;       ///< the cap ends the run before its phases do

  double tokens() const;
  double steps() const;
  double gpu_hours() const;  ///< at most the cap
};

/// Seconds of evaluations and checkpoints on the way, per step of `step_seconds`.
double pause_per_step(const Recipe& recipe, double step_seconds, double evaluation_seconds, double checkpoint_seconds);

/// The plan of an undisturbed run on as many ranks as were measured. `cap_gpu_hours` may be infinite, but not where the
/// budget is the horizon.
Plan make_plan(const Recipe& recipe, double cap_gpu_hours, const Speeds& speeds);

/// Stores the plan of `recipe`, and what it costs where the recipe has a price.
void write_plan(const std::filesystem::path& run_directory, const Plan& plan, const Recipe& recipe);

}  // namespace shoestring
