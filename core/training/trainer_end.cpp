// How an attempt ends: at its horizon, its budget or a signal, or by an error. Whatever ends it, what is whole is
// saved.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "core/training/trainer.h"

namespace shoestring {

// A signal during the last evaluation leaves the run unfinished: the next attempt evaluates.
Stop Trainer::finish(Stop stop) {
  if (trace_.any()) keep_trace();
  save();
  const bool evaluating = !goes_on_later(stop) && phase_->evaluator() != nullptr && evaluated_step_ != state_.step;
  if (evaluating && !evaluate(true)) stop = Stop::signal;
  if (!goes_on_later(stop) && !ask_suites(true)) stop = Stop::signal;
  watch_.works_on_files(fmt::format("the account after step {}", state_.step));
  tell_sources();
  tell_power();
  account_->ended(stop, snapshots_.store().folder_of(state_.step), spent());
  return stop;
}

// The others cannot be asked any more: what is known here.
void Trainer::close_reading() noexcept {
  try {
    tell_power();
    if (!phase_) return;
    DataReading reading = read_before_;
    reading.add(phase_->reading(), kLateShards);
    account_->read(reading);
  } catch (const std::exception& second) {  // a full disk, most likely: the first error is what matters
    account_->say(fmt::format("how data came, and what energy it took, could not be noted: {}", second.what()));
  }
}

// An error ends the attempt: whatever goes wrong with saving now, that error is what matters.
void Trainer::keep_what_is_whole() noexcept {
  try {
    try {
      save_on_the_way_out();
    } catch (const std::exception& second) {
      account_->say(fmt::format("saving step {} on the way out: {}", state_.step, second.what()));
    }
  } catch (const std::exception&) {  // a terminal that is gone, memory that is spent
  }
}

// What was trained since the last checkpoint, where weights are whole and it is not saving that failed. A rank that
// holds the whole model saves it alone, whatever the others are at. Ranks that hold it together need each other: they
// meet on communicators of their own, since messages of the step may still be under way on the others.
void Trainer::save_on_the_way_out() {
  const bool whole = engine_ != nullptr && engine_->whole() && !snapshots_.writing();
  const bool unsaved = whole && state_.step != snapshots_.step() && state_.step != first_step_;
  const int keep = std::max(2, recipe_.checkpoint.keep);  // beside the last that was good
  if (snapshots_.holds_all(parts())) {
    if (!unsaved || !snapshots_.writes()) return;
    engine_->check_finite_alone(state_.step);
    account_->saved(snapshots_.save_alone(parts(), state_, keep, saving()), account_->spent_alone());
    return;
  }
  if (shared_error_ || !watch_.all_end()) return;
  rescue_->set_timeout(watch_.patience_for_others());
  const std::int64_t step = unsaved && engine_->finite() ? state_.step : -1;
  std::array<std::int64_t, 2> ends = {step, -step};
  rescue_->all_reduce(view_of(ends.data(), DType::i64, {2}), Reduction::max);
  if (step < 0 || ends[0] != step || ends[1] != -step) return;  // not all are whole, and at the same step
  Mesh mesh(*rescue_, layout_.shape);
  account_->saved(snapshots_.save_over(mesh, parts(), state_, keep, saving()), account_->spent_alone());
}

// The first rank to leave with an error ends all: not before the account is closed.
void Trainer::await_the_others() noexcept {
  try {
    world_.barrier();
  } catch (const std::exception& error) {  // gone already; the error that ended the attempt is what matters
    account_->say(error.what());
  }
}

// Every rank comes here: all judged the same.
void Trainer::end_on_non_finite(const std::string& why) {
  save(std::max(2, recipe_.checkpoint.keep));  // beside the last that was good
  shared_error_ = true;
  fail(ExitCode::non_finite,
       "step {}: {}; no step of the last {} was finite (guard.skip_limit). Lower the learning rate, look at the data, "
       "or take a wider number format before going on",
       state_.step, why, state_.guard.skipped_in_row);
}

// Every rank comes here: all were told the same.
void Trainer::end_on_short_job() {
  shared_error_ = true;
  const double reserve = account_->reserve_seconds();
  fail(ExitCode::no_progress,
       "budget.job_hours: {:.3g} s of a job leave no room for a step before what must follow{}; give jobs more time",
       recipe_.budget.job_hours * 3600, reserve > 0 ? fmt::format(" ({:.3g} s)", reserve) : "");
}

}  // namespace shoestring
