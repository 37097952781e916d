#include "core/budget/planner.h"

#include <algorithm>
#include <cmath>

#include "core/budget/price.h"
#include "core/recipe/explain.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr double kSecondsPerHour = 3600;
constexpr double kSecondsPerMinute = 60;

double per_step(double seconds, std::int64_t every_steps) {
  return every_steps > 0 ? seconds / static_cast<double>(every_steps) : 0;
}

double wanted_steps(const PhaseSpec& phase, Horizon horizon) {
  if (horizon == Horizon::steps) return static_cast<double>(phase.steps);
  return static_cast<double>(phase.tokens) / static_cast<double>(phase.global_batch * phase.sequence);
}

double sum_of(const std::vector<PlannedPhase>& phases, double PlannedPhase::*what) {
  double sum = 0;
  for (const PlannedPhase& phase : phases) sum += phase.*what;
  return sum;
}

}  // namespace

double Plan::tokens() const { return sum_of(phases, &PlannedPhase::tokens); }
double Plan::steps() const { return sum_of(phases, &PlannedPhase::steps); }
double Plan::gpu_hours() const { return around_gpu_hours + sum_of(phases, &PlannedPhase::gpu_hours); }

double pause_per_step(const Recipe& recipe, double step_seconds, double evaluation_seconds, double checkpoint_seconds) {
  const double pause = per_step(evaluation_seconds, recipe.evaluation.every_steps) +
                       per_step(checkpoint_seconds, recipe.checkpoint.every_steps);
  const double between = recipe.checkpoint.every_minutes * kSecondsPerMinute;
  return between > 0 ? pause + (step_seconds + pause) * checkpoint_seconds / between : pause;
}

Plan make_plan(const Recipe& recipe, double cap_gpu_hours, const Speeds& speeds) {
  check(speeds.phases.size() == recipe.phases.size(), "{} phases were measured, the recipe has {}",
        speeds.phases.size(), recipe.phases.size());
  const Horizon horizon = recipe.schedule.horizon;
  double shares = 0;
  for (const PhaseSpec& phase : recipe.phases) shares += phase.share;

  Plan plan;
  const double around = speeds.startup_seconds + speeds.checkpoint_seconds + speeds.phases.back().evaluation_seconds;
  plan.around_gpu_hours = std::min(around / kSecondsPerHour, cap_gpu_hours);
  const double for_steps = (cap_gpu_hours - plan.around_gpu_hours) * kSecondsPerHour;
  double left = for_steps;
  for (std::size_t i = 0; i < recipe.phases.size(); ++i) {
    const PhaseSpec& phase = recipe.phases[i];
    const PhaseSpeed& speed = speeds.phases[i];
    const double step_seconds =
        speed.step_seconds +
        pause_per_step(recipe, speed.step_seconds, speed.evaluation_seconds, speeds.checkpoint_seconds);
    const double possible = left / step_seconds;
    double steps = horizon == Horizon::budget ? for_steps * phase.share / shares / step_seconds
                                              : std::ceil(wanted_steps(phase, horizon));
    plan.cut_short = plan.cut_short || (horizon != Horizon::budget && steps > possible);
    steps = std::floor(std::min(steps, possible) + 1e-9);
    left -= steps * step_seconds;
    plan.phases.push_back({.name = phase.name,
                           .tokens = steps * speeds.phases[i].tokens_per_step,
                           .steps = steps,
                           .gpu_hours = steps * step_seconds / kSecondsPerHour});
  }
  return plan;
}

void write_plan(const std::filesystem::path& run_directory, const Plan& plan, const Recipe& recipe) {
  const auto price = price_of(recipe.budget);
  Json phases = Json::array();
  for (const PlannedPhase& phase : plan.phases) {
    phases.push(Json::object({{"name", phase.name},
                              {"tokens", std::round(phase.tokens)},
                              {"steps", phase.steps},
                              {"gpu_hours", phase.gpu_hours}}));
  }
  const Json file = Json::object({{"schema", kPlanSchema},
                                  {"recipe", recipe_hash(recipe)},
                                  {"gpu_hours", plan.gpu_hours()},
                                  {"usd", price ? Json(price->usd(plan.gpu_hours())) : Json()},
                                  {"tokens", std::round(plan.tokens())},
                                  {"steps", plan.steps()},
                                  {"cut_short", plan.cut_short},
                                  {"phases", std::move(phases)}});
  replace_file(run_directory / kPlanFile, file.dump(1) + "\n");
}

std::optional<Prediction> read_prediction(const std::filesystem::path& run_directory) {
  constexpr std::int64_t kMostBytes = 1 << 20;
  try {
    const std::filesystem::path file = run_directory / kPlanFile;
    const Json plan = parse_json(read_file(file, kMostBytes), file.string());
    return Prediction{plan.at("gpu_hours").number(), plan.number_or("tokens", 0), plan.text_or("recipe", "")};
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace shoestring
