// What a run will cost and buy, foretold before it from speeds that a trial measured (core/training/speed_trial.h).
// Stored as plan.json in the run directory; the report sets it beside what came.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

inline constexpr std::string_view kPlanFile = "plan.json";
inline constexpr std::string_view kPlanSchema = "shoestring.plan/1";

/// One phase on one rank, in wall-clock seconds.
struct PhaseSpeed {
  double step_seconds = 0;        ///< usual, at the full global batch
  double tokens_per_step = 0;     ///< trained ones
  double evaluation_seconds = 0;  ///< of all held-out tokens that the recipe asks for; 0: none
};

struct Speeds {
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
  double around_gpu_hours = 0;  ///< start, last evaluation, last checkpoint
  bool cut_short = false;       ///< the cap ends the run before its phases do

  double tokens() const;
  double steps() const;
  double gpu_hours() const;  ///< at most the cap
};

/// Seconds of evaluations and checkpoints on the way, per step of `step_seconds`.
double pause_per_step(const Recipe& recipe, double step_seconds, double evaluation_seconds, double checkpoint_seconds);

/// The plan of an undisturbed run on one rank. `cap_gpu_hours` may be infinite, but not where the budget is the
/// horizon.
Plan make_plan(const Recipe& recipe, double cap_gpu_hours, const Speeds& speeds);

/// What was foretold, for the report.
struct Prediction {
  double gpu_hours = 0;
  double tokens = 0;
  std::string recipe;  ///< recipe_hash of the one it was made for; empty: not known
};

/// Stores the plan of `recipe`, and what it costs where the recipe has a price.
void write_plan(const std::filesystem::path& run_directory, const Plan& plan, const Recipe& recipe);
/// Nothing where no plan was stored, or none that can be read: a report without its comparison is better than none.
std::optional<Prediction> read_prediction(const std::filesystem::path& run_directory);

}  // namespace shoestring
