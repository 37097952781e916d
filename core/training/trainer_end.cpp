// How an attempt ends: at its horizon, its budget or a signal, or by an error. Whatever ends it, what is whole is
// saved.
#include <algorithm>
#include <chrono>
#include <thread>

#include "core/budget/report.h"
#include "core/training/saved_work.h"
#include "core/training/trainer.h"

namespace shoestring {

namespace fs = std::filesystem;

// A signal during the last evaluation leaves the run unfinished: the next attempt evaluates.
Stop Trainer::finish(Stop stop) {
  save();
  const bool evaluating = !goes_on_later(stop) && evaluator_ && evaluated_step_ != state_.step;
  if (evaluating && !evaluate(true)) stop = Stop::signal;
  const AttemptProgress progress = attempt_progress();
  if (!leads()) return stop;
  const bool later = goes_on_later(stop);
  const bool budget = stop == Stop::budget;
  const fs::path saved = checkpoints_.root() / fmt::format("step_{:08}", state_.step);
  ledger_->end(later    ? "preempted"
               : budget ? "budget"
                        : "done",
               static_cast<int>(later ? ExitCode::preempted : ExitCode::done), "", progress);
  store_report();
  announce(fmt::format("{}: {} after step {}; {}{}", recipe_.run.name,
                       later    ? "left as asked"
                       : budget ? "the budget is used up"
                                : "done",
                       state_.step, saved.string(),
                       later ? " is saved, the same command goes on from there" : " is its model"));
  return stop;
}

// Which key of the recipe leaves no room.
void Trainer::announce_limit(Stop stop) {
  if (stop != Stop::budget && stop != Stop::job && stop != Stop::job_too_short) return;
  announce(fmt::format("{}: the next step and what must follow no longer fit",
                       cap_->key_of(stop == Stop::budget ? CapLimit::run : CapLimit::job)));
}

// Every rank comes here: all were told the same.
void Trainer::end_on_short_job() {
  shared_error_ = true;
  fail(ExitCode::no_progress,
       "budget.job_hours: {:.3g} s of a job leave no room for a step before what must follow{}; give jobs more time",
       recipe_.budget.job_hours * 3600, leads() ? fmt::format(" ({:.3g} s)", cap_->reserve_seconds()) : "");
}

// The ledger holds all of it: a report that could not be stored can be made again.
void Trainer::store_report() {
  try {
    write_report(directory_, make_report(directory_));
  } catch (const std::exception& error) {
    announce(fmt::format("the report could not be stored ({}); shoestring report {} makes it anew", error.what(),
                         directory_.string()));
  }
}

// As save(), by rank 0 while the others are gone or wait in vain.
void Trainer::save_alone() {
  const double begin = meter_.elapsed_seconds();
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    engine_->check_finite(state_.step);
    write_checkpoint(begin, std::max(2, recipe_.checkpoint.keep));  // beside the last that was good
  }
  saved_step_ = state_.step;
  saved_at_ = meter_.elapsed_seconds();
  ledger_->checkpoint(commit_of(begin), progress_alone());
}

// An error ends the attempt. What it trained since the last checkpoint is saved by rank 0 alone, since other ranks
// cannot be asked any more; not where the weights are half-way between two steps, nor where saving is what failed.
// Returns what is there to go on from.
std::string Trainer::keep_what_is_whole(const Error& error) noexcept {
  try {
    if (!leads()) {
      // Whoever waits in vain ends all ranks; rank 0, which waits as well, is given the time to save.
      const double seconds = 5 + 3 * resources_->guessed_checkpoint_seconds();
      if (error.code() == ExitCode::hang) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      return {};
    }
    if (engine_->whole() && !saving_ && state_.step != saved_step_ && state_.step != first_step_) {
      try {
        save_alone();
      } catch (const std::exception& second) {
        announce(fmt::format("saving step {} on the way out: {}", state_.step, second.what()));
      }
    }
    return saved_work_text(checkpoints_);
  } catch (const std::exception&) {  // a terminal that is gone, memory that is spent
    return {};
  }
}

// The first rank to leave with an error ends all: not before rank 0 has closed the ledger.
void Trainer::await_the_others() noexcept {
  try {
    world_.barrier();
  } catch (const std::exception& error) {  // gone already; the error that ended the attempt is what matters
    announce(error.what());
  }
}

// The last line of an attempt that an error ends.
void Trainer::give_up(const Error& error) noexcept {
  if (!leads()) return;
  try {
    ledger_->end("failed", static_cast<int>(error.code()), error.what(), progress_alone());
    store_report();
  } catch (const std::exception& second) {  // a full disk, most likely: the first error is what matters
    announce(fmt::format("the ledger could not be closed: {}", second.what()));
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

}  // namespace shoestring
