// How an attempt ends: at its horizon, its budget or a signal, or by an error. Whatever ends it, what is whole is
// saved.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/training/saved_work.h"
#include "core/training/trainer.h"

namespace shoestring {

// A signal during the last evaluation leaves the run unfinished: the next attempt evaluates.
Stop Trainer::finish(Stop stop) {
  save();
  const bool evaluating = !goes_on_later(stop) && phase_->evaluator() != nullptr && evaluated_step_ != state_.step;
  if (evaluating && !evaluate(true)) stop = Stop::signal;
  account_->ended(stop, snapshots_.store().root() / fmt::format("step_{:08}", state_.step), spent());
  return stop;
}

// An error ends the attempt. What it trained since the last checkpoint is saved by one rank alone, since the others
// cannot be asked any more; not where the weights are half-way between two steps, nor where saving is what failed.
// Returns what is there to go on from.
std::string Trainer::keep_what_is_whole(const Error& error) noexcept {
  try {
    if (!snapshots_.writes()) {
      // Whoever waits in vain ends all ranks; the one that writes, which waits as well, is given the time to save.
      const double seconds = 5 + 3 * resources_->guessed_checkpoint_seconds();
      if (error.code() == ExitCode::hang) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      return {};
    }
    const bool whole = mesh_.shape().ranks_of_model() == 1;  // else this rank has a part of the model only
    const bool unsaved = state_.step != snapshots_.step() && state_.step != first_step_ && whole;
    if (unsaved && engine_->whole() && !snapshots_.writing()) {
      try {
        engine_->check_finite_alone(state_.step);
        const int keep = std::max(2, recipe_.checkpoint.keep);  // beside the last that was good
        account_->saved(snapshots_.save_alone(parts(), state_, keep, saving()), account_->spent_alone());
      } catch (const std::exception& second) {
        account_->say(fmt::format("saving step {} on the way out: {}", state_.step, second.what()));
      }
    }
    return saved_work_text(snapshots_.store());
  } catch (const std::exception&) {  // a terminal that is gone, memory that is spent
    return {};
  }
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
