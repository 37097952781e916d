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
    seat_.watch.steps(fmt::format("step {}", attempt_.state.step + 1));
    const Decision decision = decide_together();
    if (decision.horizon) attempt_.state.decisions.push_back(*decision.horizon);
    if (decision.evaluate && !evaluate(false)) continue;  // a signal cut it short: decide anew
    if (early_stop(recipe_, attempt_.state) && !decision.next_phase && decision.stop == Stop::none)
      continue;  // just now
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
    timing_.trace.begin_step();
    const StepOutcome outcome = step();
    if (outcome.batch.abandoned) return Stop::signal;
    timing_.trace.stepped(attempt_.state.step, work_.engine->pass());
    if (timing_.trace.due()) keep_trace();
    seat_.watch.step_took(outcome.seconds);
    take_note(outcome);
    if (outcome.judgement.verdict == StepVerdict::go_back) go_back();
    if (outcome.judgement.verdict == StepVerdict::end) {
      end_on_non_finite(fmt::format("{}; no step of the last {} was finite (guard.skip_limit)", outcome.judgement.why,
                                    attempt_.state.guard.skipped_in_row));
    }
  }
}

// One rank decides, since time and signals differ between ranks; all ranks learn the same. Whether any was asked to
// leave it knows from the last exchange of what was spent; who is asked later ends the next step in its middle.
Decision Trainer::decide_together() {
  DecisionWords words = words_of(account_->decide({.state = attempt_.state,
                                                   .first_step = attempt_.first_step,
                                                   .saved_step = snapshots_.step(),
                                                   .evaluated_step = attempt_.evaluated_step,
                                                   .saved_at = snapshots_.saved_seconds(),
                                                   .held_out = work_.phase->evaluator() != nullptr,
                                                   .stop_requested = stop_requested()}));
  if (seat_.world.size() > 1) {
    const Meter::Scope exchanging(timing_.meter, Category::exposed_communication);
    seat_.world.broadcast(view_of(words.data(), DType::i64, {kDecisionWords}), 0);
  }
  return decision_of(words);
}

// One global batch.
StepOutcome Trainer::step() {
  timing_.stop.begin();
  StepOutcome outcome = work_.engine->step(
      {.plan = work_.phase->plan(),
       .feed = work_.phase->feed(),
       .samples = attempt_.state.phase_samples,
       .update = attempt_.state.updates + 1,
       .learning_rate = learning_rate(schedule_of_phase(recipe_, static_cast<std::size_t>(attempt_.state.phase)),
                                      attempt_.state.updates + 1, progress_of(recipe_, attempt_.state)),
       .may_go_back = snapshots_.step() >= 0,
       .stops = {.all = [this] { return timing_.stop.leave(); }, .own = stop_requested}});
  if (outcome.batch.abandoned) {
    account_->say(
        fmt::format("step {}: left as asked, in the middle of it; it will be done anew", attempt_.state.step + 1));
    return outcome;
  }
  if (outcome.judgement.verdict == StepVerdict::apply) {
    ++attempt_.state.updates;
    if (snapshots_.step() == attempt_.state.step) attempt_.state.proven_step = attempt_.state.step;
  }
  ++attempt_.state.step;
  ++attempt_.state.phase_steps;
  attempt_.state.phase_samples += outcome.sequences;
  attempt_.state.tokens += static_cast<std::int64_t>(outcome.batch.text_tokens);
  attempt_.state.learned_tokens += static_cast<std::int64_t>(outcome.batch.tokens);
  attempt_.state.loss = outcome.loss;
  attempt_.state.guard = std::move(outcome.guard);
  return outcome;
}

// What the ranks did in the steps that were recorded.
void Trainer::keep_trace() {
  const RunTrace trace = timing_.trace.gather();
  if (!snapshots_.writes()) return;
  account_->piped(pipeline_use(trace.events, seat_.layout));
  if (recipe_.run.trace == 0) return;
  const std::filesystem::path file = run_directory(recipe_) / "trace.json";
  seat_.watch.works_on_files_alone("writing " + file.string());
  replace_file(file, chrome_trace(trace, seat_.layout.shape));
  account_->say(fmt::format("what the ranks did in {} steps: {}", recipe_.run.trace, file.string()));
}

// What was done is in the account and in the metrics, also where the ranks cannot tell each other what they spent.
void Trainer::take_note(const StepOutcome& outcome) {
  if (energy_.power) energy_.power->look(timing_.meter.elapsed_seconds());
  CategorySeconds all;
  try {
    all = spent();
  } catch (const std::exception&) {
    account_->stepped(outcome, account_->spent_alone());
    throw;
  }
  if (snapshots_.writes()) seat_.watch.works_on_files_alone(fmt::format("the account of step {}", attempt_.state.step));
  account_->stepped(outcome, all);
}

// A signal makes it futile; the cap only makes it shorter. After the `last` one no step comes.
bool Trainer::evaluate(bool last) {
  seat_.watch.steps(fmt::format("the evaluation after step {}", attempt_.state.step));
  const double begin = timing_.meter.elapsed_seconds();
  double most_seconds = account_->seconds_for_evaluation(snapshots_.step() == attempt_.state.step, last);
  if (seat_.world.size() > 1) seat_.world.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  Evaluator::Outcome outcome;
  {
    const Meter::Scope timing(timing_.meter, Category::evaluation);
    outcome = work_.phase->evaluator()->run(attempt_.state.step, stop_requested, most_seconds);
  }
  if (outcome.stopped) request_stop(true);  // whoever was asked
  if (outcome.stopped) return false;
  attempt_.evaluated_step = attempt_.state.step;
  attempt_.held_out = outcome.metrics.tokens > 0 ? std::optional(outcome.metrics.loss) : std::nullopt;
  if (!last && outcome.whole) judge_held_out(outcome.metrics.loss);
  const CategorySeconds all = spent();
  account_->evaluated(outcome, timing_.meter.elapsed_seconds() - begin, all);
  return true;
}

// At the end of a phase. As an evaluation is, it is made futile by a signal, and shorter by the cap.
bool Trainer::ask_suites(bool last) {
  if (work_.phase->suites() == nullptr || attempt_.asked_step == attempt_.state.step) return true;
  seat_.watch.steps(fmt::format("the suites after step {}", attempt_.state.step));
  const double begin = timing_.meter.elapsed_seconds();
  double most_seconds = account_->seconds_for_suites(snapshots_.step() == attempt_.state.step, last);
  if (seat_.world.size() > 1) seat_.world.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  SuiteEvaluator::Outcome outcome;
  {
    const Meter::Scope timing(timing_.meter, Category::evaluation);
    outcome = work_.phase->suites()->run(stop_requested, most_seconds);
  }
  if (outcome.stopped) request_stop(true);  // whoever was asked
  if (outcome.stopped) return false;
  attempt_.asked_step = attempt_.state.step;
  const CategorySeconds all = spent();
  account_->answered(outcome, timing_.meter.elapsed_seconds() - begin, all);
  return true;
}

// Since the start of the attempt, of all ranks. Collective.
CategorySeconds Trainer::spent() {
  const CategorySeconds spent = timing_.meter.read();
  if (seat_.alone()) return spent;
  const Meter::Scope exchanging(timing_.meter, Category::exposed_communication);
  return seat_.summed(spent);
}

ExitCode Trainer::run() {
  if (attempt_.over) return ExitCode::done;
  try {
    const Stop stop = train();
    if (stop == Stop::job_too_short) end_on_short_job();
    return goes_on_later(finish(stop)) ? ExitCode::preempted : ExitCode::done;
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    if (!attempt_.shared_error) seat_.watch.tell_others(error);
    keep_what_is_whole();
    if (!attempt_.shared_error) seat_.watch.await_leader();
    const std::string kept = saved_work_text(snapshots_.store());
    const Error whole(error.code(), fmt::format("{}\n{}", error.what(), kept));
    close_reading();
    account_->failed(whole);
    if (attempt_.shared_error) await_the_others();
    throw whole;
  }
}

}  // namespace shoestring
