#include "core/budget/horizon.h"

#include <algorithm>
#include <cmath>

#include "core/budget/step_seconds.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

// Of the remaining steps: a plan that ends by less too late, or too early, is kept.
constexpr double kLate = 0.005;
constexpr double kEarly = 0.02;
constexpr double kMostSteps = 1e12;  // with an unlimited budget

double length_of(const PhaseSpec& phase, Horizon horizon) {
  switch (horizon) {
    case Horizon::tokens: return static_cast<double>(phase.tokens);
    case Horizon::steps: return static_cast<double>(phase.steps);
    case Horizon::budget: break;
  }
  return phase.share;
}

}  // namespace

std::int64_t steps_in_all(const HorizonDecision& decision) {
  const double a_step =
      (decision.end_progress - decision.progress) / static_cast<double>(decision.end_step - decision.step);
  if (!(a_step > 0)) return decision.end_step;
  return decision.step + static_cast<std::int64_t>(std::min(9e15, std::round((1 - decision.progress) / a_step)));
}

double progress_at(std::span<const HorizonDecision> decisions, std::int64_t step) {
  const HorizonDecision* holds = nullptr;
  for (const HorizonDecision& decision : decisions) {
    if (decision.step <= step) holds = &decision;
  }
  if (holds == nullptr) return 0;
  if (step >= holds->end_step) return holds->end_progress;
  const double way = static_cast<double>(step - holds->step) / static_cast<double>(holds->end_step - holds->step);
  return holds->progress + (holds->end_progress - holds->progress) * way;
}

std::vector<double> phase_ends(const Recipe& recipe) {
  double total = 0;
  for (const PhaseSpec& phase : recipe.phases) total += length_of(phase, recipe.schedule.horizon);
  check(total > 0, "the phases have no length under this horizon");
  std::vector<double> ends;
  double sum = 0;
  for (const PhaseSpec& phase : recipe.phases) {
    sum += length_of(phase, recipe.schedule.horizon);
    ends.push_back(sum / total);
  }
  ends.back() = 1;
  return ends;
}

std::optional<HorizonDecision> plan_horizon(const HorizonState& state, std::span<const double> phase_ends,
                                            const HorizonDecision* current) {
  check(state.phase >= 0 && state.phase < static_cast<int>(phase_ends.size()), "phase {} of {}", state.phase,
        phase_ends.size());
  if (!state.steps.settled()) return std::nullopt;
  const double end = phase_ends[static_cast<std::size_t>(state.phase)];
  const double to_go = 1 - state.progress;
  const double share = to_go > 0 ? std::clamp((end - state.progress) / to_go, 0.0, 1.0) : 1.0;
  // Up to the latest moment at which a step is still taken.
  const double seconds = std::max(0.0, state.remaining_seconds * share - state.steps.slow());
  const bool last = state.phase + 1 == static_cast<int>(phase_ends.size());
  const double steps = last ? state.steps.surely_within(seconds, state.pause_seconds)
                            : state.steps.expected_within(seconds, state.pause_seconds) + 1;
  HorizonDecision decision;
  decision.step = state.step;
  decision.progress = state.progress;
  decision.end_step = state.step + static_cast<std::int64_t>(std::clamp(steps, 1.0, kMostSteps));
  decision.end_progress = end;
  decision.phase = state.phase;
  if (current == nullptr || current->phase != decision.phase) return decision;
  if (current->end_step <= state.step) return std::nullopt;
  const auto later = static_cast<double>(decision.end_step - current->end_step);
  const auto to_end = static_cast<double>(decision.end_step - state.step);
  if (later > 0 ? later <= std::max(1.0, kEarly * to_end) : -later <= kLate * to_end) return std::nullopt;
  return decision;
}

}  // namespace shoestring
