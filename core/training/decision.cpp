#include "core/training/decision.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>

#include "core/budget/planner.h"
#include "core/optimizer/learning_rate.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

const PhaseSpec& phase_of(const Recipe& recipe, const TrainingState& state) {
  return recipe.phases[static_cast<std::size_t>(state.phase)];
}

bool is_last_phase(const Recipe& recipe, const TrainingState& state) {
  return state.phase + 1 == static_cast<int>(recipe.phases.size());
}

bool due(const TrainingState& state, std::int64_t every, std::int64_t last) {
  return every > 0 && state.step > 0 && state.step % every == 0 && state.step != last;
}

Stop stop_of(const Recipe& recipe, const Standing& at, double elapsed_seconds, const CapKeeper& cap) {
  if (at.stop_requested) return Stop::signal;
  if (horizon_reached(recipe, at.state)) return Stop::horizon;
  switch (cap.may_step(elapsed_seconds).limit) {
    case CapLimit::none: return Stop::none;
    case CapLimit::run: return Stop::budget;
    case CapLimit::job: break;
  }
  return at.state.step == at.first_step ? Stop::job_too_short : Stop::job;
}

// With a budget horizon the plan of the last step follows the measured speed.
std::optional<HorizonDecision> replan(const Recipe& recipe, const Standing& at, double elapsed_seconds,
                                      const CapKeeper& cap) {
  if (recipe.schedule.horizon != Horizon::budget) return std::nullopt;
  const TrainingState& state = at.state;
  const double evaluation = at.held_out ? cap.expected_seconds(Ending::evaluation) : 0;
  const HorizonState now = {.step = state.step,
                            .progress = progress_of(recipe, state),
                            .phase = state.phase,
                            .remaining_seconds = cap.surely_remaining_of_cap(elapsed_seconds),
                            .pause_seconds = pause_per_step(recipe, cap.steps().typical(), evaluation,
                                                            cap.expected_seconds(Ending::checkpoint)),
                            .steps = cap.steps()};
  return plan_horizon(now, phase_ends(recipe), state.decisions.empty() ? nullptr : &state.decisions.back());
}

}  // namespace

Decision decide(const Recipe& recipe, const Standing& at, double elapsed_seconds, const CapKeeper& cap) {
  const TrainingState& state = at.state;
  Decision decision;
  decision.stop = stop_of(recipe, at, elapsed_seconds, cap);
  if (decision.stop != Stop::none) return decision;

  double before_step = 0;
  const auto fits = [&](Ending ending) {
    const double seconds = before_step + cap.expected_seconds(ending);
    if (!cap.may_step(elapsed_seconds, seconds).step) return false;
    before_step = seconds;
    return true;
  };
  const bool overdue = recipe.checkpoint.every_minutes > 0 && state.step != at.saved_step &&
                       elapsed_seconds - at.saved_at > recipe.checkpoint.every_minutes * 60;
  // A loss that is no number may come from weights that are none: the next one tells.
  decision.save = (overdue || due(state, recipe.checkpoint.every_steps, at.saved_step)) && std::isfinite(state.loss) &&
                  fits(Ending::checkpoint);
  decision.evaluate =
      at.held_out && due(state, recipe.evaluation.every_steps, at.evaluated_step) && fits(Ending::evaluation);
  decision.horizon = replan(recipe, at, elapsed_seconds, cap);
  decision.next_phase = phase_finished(recipe, state) && !is_last_phase(recipe, state);
  return decision;
}

void check_schedule_left(const Recipe& recipe, const TrainingState& state, const LedgerHistory& history,
                         const Cap& cap) {
  constexpr double kOver = 0.95;  // from here on the learning rate has come down
  const double done = progress_of(recipe, state);
  if (recipe.schedule.horizon != Horizon::budget || done < kOver) return;
  for (const AttemptHistory& attempt : history.attempts) {
    const double before = attempt.start.cap.gpu_hours;
    if (attempt.reason != "budget" || cap.gpu_hours <= before) continue;
    fail(ExitCode::bad_recipe,
         "the schedule of this run ended with its budget of {:.6g} GPU-hours (schedule.horizon = budget): under {:.6g} "
         "({}) further steps would all be taken at the learning rate of its end, {:.3g}. Begin a new run with the "
         "higher cap under another run.name, or go on all the same with --allow-recipe-change",
         before, cap.gpu_hours, cap.from, learning_rate(recipe.schedule, state.updates + 1, done));
  }
}

double progress_of(const Recipe& recipe, const TrainingState& state) {
  if (recipe.schedule.horizon == Horizon::budget) return progress_at(state.decisions, state.step);
  const std::vector<double> ends = phase_ends(recipe);
  const auto index = static_cast<std::size_t>(state.phase);
  const double from = index == 0 ? 0.0 : ends[index - 1];
  const auto within = [&](std::int64_t done, std::int64_t all) {
    return from + (ends[index] - from) * std::min(1.0, static_cast<double>(done) / static_cast<double>(all));
  };
  const PhaseSpec& phase = phase_of(recipe, state);
  return recipe.schedule.horizon == Horizon::tokens ? within(state.phase_samples * phase.sequence, phase.tokens)
                                                    : within(state.phase_steps, phase.steps);
}

bool early_stop(const Recipe& recipe, const TrainingState& state) {
  const std::int64_t patience = phase_of(recipe, state).patience;
  return patience > 0 && state.stale_evaluations >= patience;
}

ScheduleSpec schedule_of_phase(const Recipe& recipe, std::size_t phase) {
  ScheduleSpec schedule = recipe.schedule;
  if (const double own = recipe.phases.at(phase).learning_rate; own > 0) schedule.learning_rate = own;
  return schedule;
}

bool phase_finished(const Recipe& recipe, const TrainingState& state) {
  if (early_stop(recipe, state)) return true;
  const PhaseSpec& phase = phase_of(recipe, state);
  switch (recipe.schedule.horizon) {
    case Horizon::tokens: return state.phase_samples * phase.sequence >= phase.tokens;
    case Horizon::steps: return state.phase_steps >= phase.steps;
    case Horizon::budget: break;
  }
  return progress_of(recipe, state) >= phase_ends(recipe)[static_cast<std::size_t>(state.phase)] - 1e-9;
}

bool horizon_reached(const Recipe& recipe, const TrainingState& state) {
  if (!is_last_phase(recipe, state)) return false;
  return early_stop(recipe, state) || (recipe.schedule.horizon != Horizon::budget && phase_finished(recipe, state));
}

namespace {

// A decision without the option: what travels. Both directions go through the one list of fields below.
struct Letter {
  Decision decision;
  bool replanned = false;
  HorizonDecision horizon;
};

template <typename AnyLetter, typename Field>
void for_each_field(AnyLetter& letter, const Field& field) {
  field(letter.decision.evaluate);
  field(letter.decision.save);
  field(letter.decision.stop);
  field(letter.decision.next_phase);
  field(letter.replanned);
  field(letter.horizon.step);
  field(letter.horizon.progress);
  field(letter.horizon.end_step);
  field(letter.horizon.end_progress);
  field(letter.horizon.phase);
}

}  // namespace

DecisionWords words_of(const Decision& decision) {
  const Letter letter = {
      .decision = decision,
      .replanned = decision.horizon.has_value(),
      .horizon = decision.horizon.value_or(HorizonDecision{}),
  };
  DecisionWords words{};
  std::size_t at = 0;
  for_each_field(letter, [&]<typename T>(const T& value) {
    if constexpr (std::is_same_v<T, double>) {
      words[at++] = std::bit_cast<std::int64_t>(value);
    } else {
      words[at++] = static_cast<std::int64_t>(value);
    }
  });
  check(at == words.size(), "a decision has {} words, not {}", at, words.size());
  return words;
}

Decision decision_of(const DecisionWords& words) {
  Letter letter;
  std::size_t at = 0;
  for_each_field(letter, [&]<typename T>(T& value) {
    if constexpr (std::is_same_v<T, double>) {
      value = std::bit_cast<double>(words[at++]);
    } else {
      value = static_cast<T>(words[at++]);
    }
  });
  check(static_cast<int>(letter.decision.stop) < kStops, "{} is no reason to stop",
        static_cast<int>(letter.decision.stop));
  if (letter.replanned) letter.decision.horizon = letter.horizon;
  return letter.decision;
}

}  // namespace shoestring
