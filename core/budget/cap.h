// Keeps a run inside its cap: before every step it says whether that step and what must come after it still fit.
//
// What must come after the last step is the reserve: final evaluation, final checkpoint, export. Each is the longest
// duration measured so far times a margin, which for files, that cannot be cut, covers a bad moment; an evaluation that
// is cut is of other text than its neighbours'. Before the first measurement it is a guess given by the caller:
// conservative for files, and stretched by as much as slow steps exceed usual ones; for an evaluation, which finds an
// early end when time runs out, what it takes at the pace at which steps are taken now. That of an evaluation is
// bounded besides: what it may take of the cap is a setting, and an evaluation that needs more is cut. Suites of
// questions are one by themselves, after that of held-out text. On several ranks one of them decides and the others are
// told; all seconds here are wall-clock seconds of one rank, and a GPU-hour is a rank times an hour. Ranks that began
// before the one that decides have spent their head start as well, and the job is as old as the first of them.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/budget/head_start.h"
#include "core/budget/price.h"
#include "core/budget/step_seconds.h"

namespace shoestring {

/// What ends a run besides steps.
enum class Ending : std::uint8_t { evaluation, checkpoint, export_model, suites };
inline constexpr int kEndings = 4;
/// Whether it may end early.
constexpr bool may_be_cut(Ending ending) { return ending == Ending::evaluation || ending == Ending::suites; }

/// What leaves no room for a step.
enum class CapLimit : std::uint8_t {
  none,
  run,  ///< the cap over all attempts
  job,  ///< budget.job_hours: the next job goes on
};

struct CapDecision {
  bool step = false;                ///< true: take the step
  CapLimit limit = CapLimit::none;  ///< why not
};

class CapKeeper {
 public:
  /// `spent_gpu_seconds`: charged to earlier attempts of the run (LedgerHistory::charged_gpu_seconds).
  /// `evaluation_share`: of the cap, or of one job where that is less, the most that one evaluation may take.
  /// `head_start`: of the other ranks, before the process whose elapsed seconds the calls below are given.
  CapKeeper(const Cap& cap, int ranks, double spent_gpu_seconds, double evaluation_share = 1,
            const HeadStart& head_start = {});

  /// What the ending would take now; the last guess holds until the ending is first measured.
  void guess(Ending ending, double seconds);
  void measured(Ending ending, double seconds);
  bool is_measured(Ending ending) const { return longest_[static_cast<std::size_t>(ending)] > 0; }
  /// Whether another guess would say more: nothing is measured, and the last one was made before the pace of steps was
  /// known, or in another phase.
  bool wants_guess(Ending ending) const { return !is_measured(ending) && !paced_[static_cast<std::size_t>(ending)]; }
  /// Another phase: its held-out text may be another.
  void enter_phase() { paced_ = {}; }
  void step_took(double seconds, double tokens) { steps_.add(seconds, tokens); }
  const StepSeconds& steps() const { return steps_; }

  /// What `ending` is expected to take, margin included; an evaluation at most its share.
  double expected_seconds(Ending ending) const;
  /// Wall-clock seconds needed after the last step: all endings, and what it takes to close the ledger.
  double reserve_seconds() const;
  /// Wall-clock seconds left for steps, given the seconds since this process started; below zero when overdrawn.
  double remaining_seconds(double elapsed_seconds) const;
  /// The same for a plan to rely on: if jobs had no limit, since the run goes on in another one, and if the endings
  /// came in a bad moment.
  double surely_remaining_of_cap(double elapsed_seconds) const;
  /// Wall-clock seconds until the cap itself, less what it takes to close the ledger.
  double seconds_to_cap(double elapsed_seconds) const;
  /// Wall-clock seconds an evaluation may take that begins now: its share of the cap, and no more than is left, less
  /// the checkpoint where one is still to be `saved`; with `last`, when no step comes after it, less what suites are
  /// expected to take too, or their part of it where both do not fit.
  double seconds_for_evaluation(double elapsed_seconds, bool saved, bool last) const;
  /// The same of suites, which come after it. Where steps come after them, they leave room for the reserve and for one.
  double seconds_for_suites(double elapsed_seconds, bool saved, bool last) const;
  /// Whether one more step fits, after `before_it` seconds of other work. The first step of an attempt goes before the
  /// evaluation: that may be cut to nothing.
  CapDecision may_step(double elapsed_seconds, double before_it = 0) const;

  /// The recipe's key behind a limit: "budget.usd", "budget.job_hours".
  std::string key_of(CapLimit limit) const;

  double spent_gpu_hours(double elapsed_seconds) const;
  const Cap& cap() const { return cap_; }

  /// Throws Error(budget_spent) if not even one step and a checkpoint fit at the start of an attempt.
  void check_startable(double elapsed_seconds) const;

 private:
  double expected_seconds(Ending ending, double pace) const;
  double pace_of(Ending ending) const;
  double slow_pace_of(Ending ending) const;
  double most_of_evaluation() const;
  double seconds_of_cut() const;  ///< expected of all that may be cut
  double left_of_cap(double elapsed_seconds) const;
  double left_before_reserve(double elapsed_seconds) const;

  Cap cap_;
  int ranks_;
  double spent_gpu_seconds_;
  double evaluation_share_;
  HeadStart head_start_;
  StepSeconds steps_;
  std::array<double, kEndings> guess_{};  ///< at pace 1
  std::array<bool, kEndings> paced_{};    ///< guessed when steps were measured
  std::array<double, kEndings> longest_{};
};

}  // namespace shoestring
