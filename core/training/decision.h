// What comes before the next step, and whether one comes: a pure function of where the run stands, one reading of the
// clock, the cap and the recipe. Rank 0 evaluates it, since clocks differ between ranks; the others are told the words.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/budget/cap.h"
#include "core/budget/horizon.h"
#include "core/budget/ledger_history.h"
#include "core/recipe/recipe.h"
#include "core/training/training_state.h"

namespace shoestring {

/// Why no further step is taken.
enum class Stop : std::uint8_t {
  none,           ///< one is
  horizon,        ///< the recipe's tokens or steps are done
  budget,         ///< the cap leaves no room for another step
  job,            ///< this job's hours leave none: the next job goes on
  job_too_short,  ///< they left none for a first step: no job of this length would get on
  signal,         ///< asked to save and leave
};
inline constexpr int kStops = 6;

/// Whether the run is unfinished after it, so that the same command goes on.
constexpr bool goes_on_later(Stop stop) { return stop == Stop::job || stop == Stop::signal; }

/// What the loop does next, in the order of the members. With a stop nothing else is set.
struct Decision {
  std::optional<HorizonDecision> horizon = {};  ///< progress is planned anew from this step on
  bool evaluate = false;                        ///< the two that are due take time: the loop decides anew after a save
  bool save = false;
  Stop stop = Stop::none;
  bool next_phase = false;

  bool operator==(const Decision&) const = default;
};

/// Where the run stands, as far as it bears on the decision.
struct Standing {
  const TrainingState& state;
  std::int64_t first_step = 0;       ///< steps done when this attempt began
  std::int64_t saved_step = -1;      ///< of the newest checkpoint; -1: none
  std::int64_t evaluated_step = -1;  ///< of the last evaluation; -1: none
  double saved_at = 0;               ///< seconds on the clock of `elapsed_seconds`: of that checkpoint
  bool held_out = false;             ///< there is text to evaluate on
  bool stop_requested = false;       ///< on some rank
};

/// What is due is put off to the ending when it would leave no room for a step.
Decision decide(const Recipe& recipe, const Standing& at, double elapsed_seconds, const CapKeeper& cap);

/// Throws Error(bad_recipe) where an earlier attempt under a lower cap has brought the schedule (schedule.horizon =
/// budget) to its end: under `cap` all further steps would be taken at the learning rate of that end.
void check_schedule_left(const Recipe& recipe, const TrainingState& state, const LedgerHistory& history,
                         const Cap& cap);

/// The share of the whole horizon that is behind, in [0, 1].
double progress_of(const Recipe& recipe, const TrainingState& state);
bool phase_finished(const Recipe& recipe, const TrainingState& state);
/// The phase's patience is at its end.
bool early_stop(const Recipe& recipe, const TrainingState& state);
/// The recipe's schedule with the phase's own peak.
ScheduleSpec schedule_of_phase(const Recipe& recipe, std::size_t phase);
/// Never with a budget horizon, unless patience ends: that is reached by the budget alone, speed may yet leave room for
/// another step.
bool horizon_reached(const Recipe& recipe, const TrainingState& state);

/// A decision as it travels between ranks: every bit of every field.
inline constexpr int kDecisionWords = 10;
using DecisionWords = std::array<std::int64_t, kDecisionWords>;
DecisionWords words_of(const Decision& decision);
Decision decision_of(const DecisionWords& words);

}  // namespace shoestring
