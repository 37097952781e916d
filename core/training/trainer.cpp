#include "core/training/trainer.h"

#include "core/optimizer/learning_rate.h"
#include "core/training/signals.h"

namespace shoestring {

// Until the horizon, the budget or a signal ends it: decide, step, and now and then evaluate and save.
Stop Trainer::train() {
  while (true) {
    const Decision decision = decide_together();
    if (decision.horizon) state_.decisions.push_back(*decision.horizon);
    if (decision.evaluate && !evaluate(false)) continue;  // a signal cut it short: decide anew
    if (decision.save) {
      save();
      guess_evaluation();  // anew: the guess before may be of a slow moment
      continue;            // it took time too: decide anew
    }
    if (decision.stop != Stop::none) return decision.stop;
    if (decision.next_phase) {
      enter_phase(state_.phase + 1);
      continue;
    }
    const StepOutcome outcome = step();
    account_->stepped(outcome, spent());
    if (outcome.judgement.verdict == StepVerdict::go_back) go_back();
    if (outcome.judgement.verdict == StepVerdict::end) end_on_non_finite(outcome.judgement.why);
  }
}

// One global batch.
StepOutcome Trainer::step() {
  StepOutcome outcome =
      engine_->step({.plan = *plan_,
                     .feed = *feed_,
                     .samples = state_.phase_samples,
                     .update = state_.updates + 1,
                     .learning_rate = learning_rate(recipe_.schedule, state_.updates + 1, progress_of(recipe_, state_)),
                     .may_go_back = saved_step_ >= 0});
  if (outcome.judgement.verdict == StepVerdict::apply) ++state_.updates;
  ++state_.step;
  ++state_.phase_steps;
  state_.phase_samples += outcome.sequences;
  state_.tokens += static_cast<std::int64_t>(outcome.batch.tokens);
  state_.loss = outcome.loss;
  state_.guard = std::move(outcome.guard);
  return outcome;
}

// Rank 0 decides, since time and signals differ between ranks; all ranks learn the same.
Decision Trainer::decide_together() {
  double stop = stop_requested() ? 1.0 : 0.0;
  if (world_.size() > 1) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    world_.all_reduce(view_of(&stop, DType::f64, {1}), Reduction::max);
  }
  if (stop != 0) request_stop(true);
  DecisionWords words = words_of(account_->decide({.state = state_,
                                                   .first_step = first_step_,
                                                   .saved_step = saved_step_,
                                                   .evaluated_step = evaluated_step_,
                                                   .saved_at = saved_at_,
                                                   .held_out = evaluator_ != nullptr,
                                                   .stop_requested = stop_requested()}));
  if (world_.size() > 1) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    world_.broadcast(view_of(words.data(), DType::i64, {kDecisionWords}), 0);
  }
  return decision_of(words);
}

ExitCode Trainer::run() {
  if (over_) return ExitCode::done;
  try {
    const Stop stop = train();
    if (stop == Stop::job_too_short) end_on_short_job();
    return goes_on_later(finish(stop)) ? ExitCode::preempted : ExitCode::done;
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    const std::string kept = keep_what_is_whole(error);
    const Error whole(error.code(), fmt::format("{}{}{}", error.what(), kept.empty() ? "" : "\n", kept));
    account_->failed(whole);
    if (shared_error_) await_the_others();
    throw whole;
  }
}

}  // namespace shoestring
