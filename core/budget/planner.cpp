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

void add_steps(CategorySeconds& spent, const PhaseSpeed& speed, double steps) {
  const double measured = speed.parts.total();
  if (measured <= 0) spent[Category::compute] += steps * speed.step_seconds;
  for (int i = 0; i < kCategories && measured > 0; ++i) {
    const auto category = static_cast<Category>(i);
    spent[category] += steps * speed.step_seconds * speed.parts[category] / measured;
  }
}

// Before the first step of each phase, and once more at the first save where no evaluation came before it.
double guesses(const Recipe& recipe, const Speeds& speeds) {
  const bool saves = recipe.checkpoint.every_steps > 0 || recipe.checkpoint.every_minutes > 0;
  double seconds = saves && recipe.evaluation.every_steps == 0 ? speeds.phases.front().guess_seconds : 0;
  for (const PhaseSpeed& phase : speeds.phases) seconds += phase.guess_seconds;
  return seconds;
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
  const double gpu_hours_of = speeds.ranks / kSecondsPerHour;  // a wall-clock second, of all ranks
  const double most_of_evaluation = recipe.evaluation.cap_share * cap_gpu_hours / gpu_hours_of;  // they are cut to that
  const auto evaluation_of = [&](const PhaseSpeed& speed) {
    return std::min(speed.evaluation_seconds, most_of_evaluation);
  };
  const double last_evaluation = evaluation_of(speeds.phases.back()) + guesses(recipe, speeds);
  double suites = 0;
  for (const PhaseSpeed& speed : speeds.phases) suites += std::min(speed.suites_seconds, most_of_evaluation);
  const double around =
      speeds.trial_seconds + speeds.startup_seconds + speeds.checkpoint_seconds + last_evaluation + suites;
  plan.around_gpu_hours = std::min(around * gpu_hours_of, cap_gpu_hours);
  CategorySeconds spent;  // wall-clock
  spent[Category::startup] = speeds.trial_seconds + speeds.startup_seconds;
  spent[Category::evaluation] = last_evaluation + suites;
  spent[Category::checkpoint] = speeds.checkpoint_seconds;
  const double for_steps = (cap_gpu_hours - plan.around_gpu_hours) / gpu_hours_of;
  double left = for_steps;
  for (std::size_t i = 0; i < recipe.phases.size(); ++i) {
    const PhaseSpec& phase = recipe.phases[i];
    const PhaseSpeed& speed = speeds.phases[i];
    const double pause = pause_per_step(recipe, speed.step_seconds, evaluation_of(speed), speeds.checkpoint_seconds);
    const double step_seconds = speed.step_seconds + pause;
    const double possible = left / step_seconds;
    double steps = horizon == Horizon::budget ? for_steps * phase.share / shares / step_seconds
                                              : std::ceil(wanted_steps(phase, horizon));
    plan.cut_short = plan.cut_short || (horizon != Horizon::budget && steps > possible);
    steps = std::floor(std::min(steps, possible) + 1e-9);
    left -= steps * step_seconds;
    const double evaluating = per_step(evaluation_of(speed), recipe.evaluation.every_steps);
    spent[Category::evaluation] += steps * evaluating;
    spent[Category::checkpoint] += steps * (pause - evaluating);
    add_steps(spent, speed, steps);
    plan.phases.push_back({.name = phase.name,
                           .tokens = steps * speed.tokens_per_step,
                           .steps = steps,
                           .gpu_hours = steps * step_seconds * gpu_hours_of});
  }
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    plan.seconds[category] = spent[category] * speeds.ranks;
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
  Json categories = Json::object();
  for (int i = 0; i < kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    if (plan.seconds[category] > 0) categories.set(name(category), plan.seconds[category] / kSecondsPerHour);
  }
  const Json file = Json::object({{"schema", kPlanSchema},
                                  {"recipe", recipe_hash(recipe)},
                                  {"gpu_hours", plan.gpu_hours()},
                                  {"usd", price ? Json(price->usd(plan.gpu_hours())) : Json()},
                                  {"tokens", std::round(plan.tokens())},
                                  {"steps", plan.steps()},
                                  {"cut_short", plan.cut_short},
                                  {"categories", std::move(categories)},
                                  {"phases", std::move(phases)}});
  replace_file(run_directory / kPlanFile, file.dump(1) + "\n");
}

}  // namespace shoestring
