#include "core/training/trainer.h"

#include <fmt/core.h>

#include "core/optimizer/learning_rate.h"
#include "core/training/saved_work.h"
#include "core/training/signals.h"
#include "kernels/base/file.h"

namespace shoestring {

// Until the horizon, the budget or a signal ends it: decide, step, and now and then evaluate and save. A signal ends a
// step in its middle: nothing of the state has changed by then.
Stop Trainer::train() {
  while (true) {
    watch_.steps(fmt::format("step {}", state_.step + 1));
    const Decision decision = decide_together();
    if (decision.horizon) state_.decisions.push_back(*decision.horizon);
    if (decision.evaluate && !evaluate(false)) continue;  // a signal cut it short: decide anew
    if (early_stop(recipe_, state_) && !decision.next_phase && decision.stop == Stop::none) continue;  // just now
    if (decision.save || best_is_unsaved()) {
      save();
      guess_evaluation();  // anew, once: the guess before may be of a slow moment
      continue;            // it took time too: decide anew
    }
    if (decision.stop != Stop::none) return decision.stop;
    if (decision.next_phase) {
      if (!ask_suites(false)) continue;  // likewise
      enter_next_phase();
      continue;
    }
    trace_.begin_step();
    const StepOutcome outcome = step();
    if (outcome.batch.abandoned) return Stop::signal;
    trace_.stepped(state_.step, engine_->pass());
    if (trace_.due()) keep_trace();
    watch_.step_took(outcome.seconds);
    take_note(outcome);
    if (outcome.judgement.verdict == StepVerdict::go_back) go_back();
    if (outcome.judgement.verdict == StepVerdict::end) end_on_non_finite(outcome.judgement.why);
  }
}

// One rank decides, since time and signals differ between ranks; all ranks learn the same.
Decision Trainer::decide_together() {
  double stop = stop_requested() ? 1.0 : 0.0;
  if (world_.size() > 1) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    world_.all_reduce(view_of(&stop, DType::f64, {1}), Reduction::max);
  }
  if (stop != 0) request_stop(true);
  DecisionWords words = words_of(account_->decide({.state = state_,
                                                   .first_step = first_step_,
                                                   .saved_step = snapshots_.step(),
                                                   .evaluated_step = evaluated_step_,
                                                   .saved_at = snapshots_.saved_seconds(),
                                                   .held_out = phase_->evaluator() != nullptr,
                                                   .stop_requested = stop_requested()}));
  if (world_.size() > 1) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    world_.broadcast(view_of(words.data(), DType::i64, {kDecisionWords}), 0);
  }
  return decision_of(words);
}

// One global batch.
StepOutcome Trainer::step() {
  stop_.begin();
  StepOutcome outcome =
      engine_->step({.plan = phase_->plan(),
                     .feed = phase_->feed(),
                     .samples = state_.phase_samples,
                     .update = state_.updates + 1,
                     .learning_rate = learning_rate(schedule_of_phase(recipe_, static_cast<std::size_t>(state_.phase)),
                                                    state_.updates + 1, progress_of(recipe_, state_)),
                     .may_go_back = snapshots_.step() >= 0,
                     .stops = {.all = [this] { return stop_.leave(); }, .own = stop_requested}});
  if (outcome.batch.abandoned) {
    account_->say(fmt::format("step {}: left as asked, in the middle of it; it will be done anew", state_.step + 1));
    return outcome;
  }
  if (outcome.judgement.verdict == StepVerdict::apply) ++state_.updates;
  ++state_.step;
  ++state_.phase_steps;
  state_.phase_samples += outcome.sequences;
  state_.tokens += static_cast<std::int64_t>(outcome.batch.tokens);
  state_.loss = outcome.loss;
  state_.guard = std::move(outcome.guard);
  return outcome;
}

// What the ranks did in the steps that were recorded.
void Trainer::keep_trace() {
  const RunTrace trace = trace_.gather();
  if (!snapshots_.writes()) return;
  account_->piped(pipeline_use(trace.events, layout_));
  if (recipe_.run.trace == 0) return;
  const std::filesystem::path file = run_directory(recipe_) / "trace.json";
  watch_.works_on_files_alone("writing " + file.string());
  replace_file(file, chrome_trace(trace, layout_.shape));
  account_->say(fmt::format("what the ranks did in {} steps: {}", recipe_.run.trace, file.string()));
}

// What was done is in the account and in the metrics, also where the ranks cannot tell each other what they spent.
void Trainer::take_note(const StepOutcome& outcome) {
  if (power_) power_->look(meter_.elapsed_seconds());
  CategorySeconds all;
  try {
    all = spent();
  } catch (const std::exception&) {
    account_->stepped(outcome, account_->spent_alone());
    throw;
  }
  if (snapshots_.writes()) watch_.works_on_files_alone(fmt::format("the account of step {}", state_.step));
  account_->stepped(outcome, all);
}

// A signal makes it futile; the cap only makes it shorter. After the `last` one no step comes.
bool Trainer::evaluate(bool last) {
  watch_.steps(fmt::format("the evaluation after step {}", state_.step));
  const double begin = meter_.elapsed_seconds();
  double most_seconds = account_->seconds_for_evaluation(snapshots_.step() == state_.step, last);
  if (world_.size() > 1) world_.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  Evaluator::Outcome outcome;
  {
    const Meter::Scope timing(meter_, Category::evaluation);
    outcome = phase_->evaluator()->run(state_.step, stop_requested, most_seconds);
  }
  if (outcome.stopped) return false;
  evaluated_step_ = state_.step;
  if (!last && outcome.whole) judge_held_out(outcome.metrics.loss);
  const CategorySeconds all = spent();
  account_->evaluated(outcome, meter_.elapsed_seconds() - begin, all);
  return true;
}

// At the end of a phase. As an evaluation is, it is made futile by a signal, and shorter by the cap.
bool Trainer::ask_suites(bool last) {
  if (phase_->suites() == nullptr || asked_step_ == state_.step) return true;
  watch_.steps(fmt::format("the suites after step {}", state_.step));
  const double begin = meter_.elapsed_seconds();
  double most_seconds = account_->seconds_for_suites(snapshots_.step() == state_.step, last);
  if (world_.size() > 1) world_.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  SuiteEvaluator::Outcome outcome;
  {
    const Meter::Scope timing(meter_, Category::evaluation);
    outcome = phase_->suites()->run(stop_requested, most_seconds);
  }
  if (outcome.stopped) return false;
  asked_step_ = state_.step;
  const CategorySeconds all = spent();
  account_->answered(outcome, meter_.elapsed_seconds() - begin, all);
  return true;
}

void Trainer::save(int keep) {
  if (snapshots_.step() == state_.step) return;
  watch_.works_on_files(fmt::format("saving step {}", state_.step));
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    shared_error_ = true;  // every rank has the same weights
    engine_->check_finite(state_.step);
    shared_error_ = false;
  }
  const CheckpointCommit commit = snapshots_.save(parts(), state_, keep, saving());
  watch_.files_take(commit.took_seconds);
  account_->saved(commit, spent());
}

// Since the start of the attempt, summed over ranks. Collective.
CategorySeconds Trainer::spent() {
  CategorySeconds spent = meter_.read();
  if (world_.size() == 1) return spent;
  const Meter::Scope exchanging(meter_, Category::exposed_communication);
  world_.all_reduce(view_of(spent.seconds.data(), DType::f64, {kCategories}));
  return spent;
}

ExitCode Trainer::run() {
  if (over_) return ExitCode::done;
  try {
    const Stop stop = train();
    if (stop == Stop::job_too_short) end_on_short_job();
    return goes_on_later(finish(stop)) ? ExitCode::preempted : ExitCode::done;
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    if (!shared_error_) watch_.tell_others(error);
    keep_what_is_whole();
    if (!shared_error_) watch_.await_leader();
    const std::string kept = saved_work_text(snapshots_.store());
    const Error whole(error.code(), fmt::format("{}\n{}", error.what(), kept));
    close_reading();
    account_->failed(whole);
    if (shared_error_) await_the_others();
    throw whole;
  }
}

}  // namespace shoestring
