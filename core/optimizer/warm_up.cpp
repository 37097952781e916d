#include "core/optimizer/warm_up.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/budget/horizon.h"
#include "core/optimizer/learning_rate.h"
#include "core/recipe/model_from.h"

namespace shoestring {
namespace {

/// Phases in a row that share a warm-up.
struct WarmUp {
  std::size_t first = 0, last = 0;
  double steps = 0;
};

std::vector<WarmUp> warm_ups(const Recipe& recipe, const PhaseSteps& steps) {
  std::vector<WarmUp> all;
  for (std::size_t phase = 0; phase < recipe.phases.size(); ++phase) {
    if (begins_with_weights(recipe, phase)) all.push_back({.first = phase});
    all.back().last = phase;
    all.back().steps += steps(phase, 1);
  }
  return all;
}

std::string name_of(const Recipe& recipe, const WarmUp& warm_up) {
  std::string name = "phase." + recipe.phases[warm_up.first].name;
  if (warm_up.last > warm_up.first) name += " to phase." + recipe.phases[warm_up.last].name;
  return name + ", with a warm-up of its own";
}

/// Steps of the run that are done when `progress` is behind.
double steps_before(const Recipe& recipe, const PhaseSteps& steps, double progress) {
  const std::vector<double> ends = phase_ends(recipe);
  double before = 0;
  double from = 0;
  for (std::size_t phase = 0; phase < ends.size(); ++phase) {
    if (progress <= ends[phase]) return before + steps(phase, (progress - from) / (ends[phase] - from));
    before += steps(phase, 1);
    from = ends[phase];
  }
  return before;
}

/// Of the steps of a run that decays before it is warm.
double highest_rate(const Recipe& recipe, const PhaseSteps& steps) {
  constexpr int kLooks = 1000;
  const double stable = stable_share(recipe.schedule);
  double highest = 0;  // the rate may rise on for a while
  for (int look = 0; look <= kLooks; ++look) {
    const double progress = stable + (1 - stable) * look / kLooks;
    const double step = std::min(9e15, std::floor(steps_before(recipe, steps, progress) + 1e-6) + 1);
    highest = std::max(highest, learning_rate(recipe.schedule, static_cast<std::int64_t>(step), progress));
  }
  return highest;
}

}  // namespace

PhaseSteps spread_over_phases(const Recipe& recipe, double steps) {
  return [ends = phase_ends(recipe), steps](std::size_t phase, double share) {
    return steps * share * (ends.at(phase) - (phase == 0 ? 0 : ends.at(phase - 1)));
  };
}

std::string unfinished_warmup(const Recipe& recipe, const PhaseSteps& steps) {
  const ScheduleSpec& schedule = recipe.schedule;
  if (schedule.warmup_steps == 0 || recipe.phases.empty()) return {};
  const auto warm_up_steps = static_cast<double>(schedule.warmup_steps);
  const std::vector<WarmUp> all = warm_ups(recipe, steps);
  double shortest = std::numeric_limits<double>::max();
  for (const WarmUp& one : all) shortest = std::min(shortest, one.steps);
  const auto told = [&](const std::string& why, double rate, double peak) {
    return fmt::format(
        "schedule.warmup_steps = {} {}: its rate would reach {:.3g} of {:.3g} at most; set it to some {:.0f}",
        schedule.warmup_steps, why, rate, peak, std::floor(shortest / 20));
  };
  for (const WarmUp& one : all) {
    if (warm_up_steps < one.steps) continue;
    const double own = recipe.phases[one.last].learning_rate;
    const double peak = own > 0 ? own : schedule.learning_rate;
    return told(fmt::format("leaves nothing of the {:.0f} steps of {}", one.steps,
                            all.size() == 1 ? "the run" : name_of(recipe, one)),
                peak * one.steps / warm_up_steps, peak);
  }
  const double stable = steps_before(recipe, steps, stable_share(schedule));
  if (warm_up_steps <= std::floor(stable + 1e-6) + 1) return {};
  return told(fmt::format("does not end before the decay begins, after {:.0f} of the {:.0f} steps of the run", stable,
                          steps_before(recipe, steps, 1)),
              highest_rate(recipe, steps), schedule.learning_rate);
}

}  // namespace shoestring
