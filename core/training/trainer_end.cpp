// How an attempt ends: at its horizon, its budget or a signal, or by an error. Whatever ends it, what is whole is
// saved.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/training/trainer.h"
#include "kernels/base/file.h"

namespace shoestring {

// A signal during the last evaluation leaves the run unfinished: the next attempt evaluates.
Stop Trainer::finish(Stop stop) {
  if (timing_.trace.any()) keep_trace();
  save();
  const bool evaluating =
      !goes_on_later(stop) && work_.phase->evaluator() != nullptr && attempt_.evaluated_step != attempt_.state.step;
  if (evaluating && !evaluate(true)) stop = Stop::signal;
  if (!goes_on_later(stop)) require_finite_end();
  if (!goes_on_later(stop) && !ask_suites(true)) stop = Stop::signal;
  seat_.watch.works_on_files(fmt::format("the account after step {}", attempt_.state.step));
  tell_sources();
  tell_power();
  tell_waits();
  account_->ended(stop, snapshots_.store().folder_of(attempt_.state.step), spent());
  return stop;
}

// The others cannot be asked any more: what is known here.
void Trainer::close_reading() noexcept {
  try {
    tell_power();
    tell_waits();
    if (!work_.phase) return;
    DataReading reading = work_.read_before;
    reading.add(work_.phase->reading(), kLateShards);
    account_->read(reading);
  } catch (const std::exception& second) {  // a full disk, most likely: the first error is what matters
    account_->say(fmt::format("how data came, and what energy it took, could not be noted: {}", second.what()));
  }
}

void Trainer::save(int keep) {
  if (snapshots_.step() == attempt_.state.step) return;
  seat_.watch.works_on_files(fmt::format("saving step {}", attempt_.state.step));
  {
    const Meter::Scope timing(timing_.meter, Category::checkpoint);
    try {
      work_.engine->check_finite(attempt_.state.step);
    } catch (const Error& error) {  // every rank has the same weights, but not the same messages
      attempt_.shared_error = error.code() == ExitCode::non_finite;
      throw;
    }
  }
  const CheckpointCommit commit = snapshots_.save(parts(), attempt_.state, keep, saving());
  seat_.watch.files_take(commit.took_seconds);
  account_->saved(commit, spent());
}

// An error ends the attempt: whatever goes wrong with saving now, that error is what matters.
void Trainer::keep_what_is_whole() noexcept {
  try {
    try {
      save_on_the_way_out();
    } catch (const std::exception& second) {
      account_->say(fmt::format("saving step {} on the way out: {}", attempt_.state.step, second.what()));
    }
  } catch (const std::exception&) {  // a terminal that is gone, memory that is spent
  }
}

// What was trained since the last checkpoint, where weights are whole and it is not saving that failed. A rank that
// holds the whole model saves it alone, whatever the others are at. Ranks that hold it together need each other: they
// meet on communicators of their own, since messages of the step may still be under way on the others.
void Trainer::save_on_the_way_out() {
  const bool whole = work_.engine != nullptr && work_.engine->whole() && !snapshots_.writing();
  const bool unsaved = whole && attempt_.state.step != snapshots_.step() && attempt_.state.step != attempt_.first_step;
  const int keep = std::max(2, recipe_.checkpoint.keep);  // beside the last that was good
  if (snapshots_.holds_all(parts())) {
    if (!unsaved || !snapshots_.writes()) return;
    work_.engine->check_finite_alone(attempt_.state.step);
    account_->saved(snapshots_.save_alone(parts(), attempt_.state, keep, saving()), account_->spent_alone());
    return;
  }
  if (attempt_.shared_error || !seat_.watch.all_end()) return;
  seat_.rescue->set_timeout(seat_.watch.patience_for_others());
  const std::int64_t step = unsaved && work_.engine->finite() ? attempt_.state.step : -1;
  std::array<std::int64_t, 2> ends = {step, -step};
  seat_.rescue->all_reduce(view_of(ends.data(), DType::i64, {2}), Reduction::max);
  if (step < 0 || ends[0] != step || ends[1] != -step) return;  // not all are whole, and at the same step
  Mesh mesh(*seat_.rescue, seat_.layout.shape);
  account_->saved(snapshots_.save_over(mesh, parts(), attempt_.state, keep, saving()), account_->spent_alone());
}

// The first rank to leave with an error ends all: not before the account is closed.
void Trainer::await_the_others() noexcept {
  try {
    seat_.world.barrier();
  } catch (const std::exception& error) {  // gone already; the error that ended the attempt is what matters
    account_->say(error.what());
  }
}

// A run that comes to its end with weights that give no number is not done. Held-out text tells of them; where there is
// none, the last step does. One step of strange data is passed over where held-out text proves the weights: two in a
// row, or one without any step taken, say that nothing is learned, though the loss itself may be finite.
void Trainer::require_finite_end() {
  const bool evaluated = attempt_.evaluated_step == attempt_.state.step && attempt_.held_out.has_value();
  if (evaluated && !std::isfinite(*attempt_.held_out)) {
    end_on_non_finite("the run is at its end, and the loss of its weights on held-out text is not finite");
  }
  const int broken = attempt_.state.guard.broken_in_row;
  if (broken > 1 || (broken == 1 && (!evaluated || attempt_.state.updates == 0))) {
    end_on_non_finite(fmt::format("the run is at its end, and its last {} not finite and left the weights as they were",
                                  broken == 1 ? std::string("step was") : fmt::format("{} steps were", broken)));
  }
}

// Every rank comes here: all judged the same.
void Trainer::end_on_non_finite(const std::string& why) {
  save(std::max(2, recipe_.checkpoint.keep));  // beside the last that was good
  attempt_.shared_error = true;
  const std::int64_t proven = attempt_.state.proven_step;
  std::string back = "; no finite step was taken from any checkpoint: --begin-anew begins the run again";
  if (proven >= 0 && type_of(snapshots_.store().folder_of(proven)) == std::filesystem::file_type::directory) {
    back = fmt::format(
        "; {} is the last that a step was taken from: --from-older goes on from it once those after it are moved away",
        snapshots_.store().folder_of(proven).filename().string());
  }
  fail(ExitCode::non_finite,
       "step {}: {}. Lower the learning rate, look at the data, or take a wider number format before going on{}",
       attempt_.state.step, why, back);
}

// Every rank comes here: all were told the same.
void Trainer::end_on_short_job() {
  attempt_.shared_error = true;
  const double reserve = account_->reserve_seconds();
  fail(ExitCode::no_progress,
       "budget.job_hours: {:.3g} s of a job leave no room for a step before what must follow{}; give jobs more time",
       recipe_.budget.job_hours * 3600, reserve > 0 ? fmt::format(" ({:.3g} s)", reserve) : "");
}

}  // namespace shoestring
