#include "core/training/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/optimizer/learning_rate.h"
#include "core/training/signals.h"
#include "core/training/weight_update.h"

namespace shoestring {

// Until the horizon, the budget or a signal ends it: decide, step, and now and then evaluate and save.
Trainer::Verdict Trainer::train() {
  while (true) {
    const Decision decision = decide();
    if (decision.horizon) state_.decisions.push_back(*decision.horizon);
    if (decision.evaluate && !evaluate(false)) continue;  // a signal cut it short: decide anew
    if (decision.checkpoint) {
      save();
      if (leads()) guess_evaluation();  // anew: the guess before may be of a slow moment
      continue;                         // it took time too: decide anew
    }
    if (decision.verdict != Verdict::step) return decision.verdict;
    if (decision.next_phase) {
      enter_phase(state_.phase + 1);
      continue;
    }
    const StepOutcome outcome = step();
    record(outcome);
    if (outcome.judgement.verdict == StepVerdict::go_back) go_back();
    if (outcome.judgement.verdict == StepVerdict::end) end_on_non_finite(outcome.judgement.why);
  }
}

// One optimizer update from one global batch.
Trainer::StepOutcome Trainer::step() {
  const double begin = meter_.elapsed_seconds();
  StepOutcome outcome;
  outcome.sequences = plan_->global_batch(state_.phase_samples);
  outcome.learning_rate = learning_rate(recipe_.schedule, state_.updates + 1, progress());
  outcome.batch = pass_->run(*plan_, state_.phase_samples, *feed_);

  const Meter::Scope computing(meter_, Category::compute);
  whole_ = false;
  const WeightUpdate update =
      update_weights({.recipe = recipe_,
                      .batch = outcome.batch,
                      .number = state_.updates + 1,
                      .learning_rate = outcome.learning_rate,
                      .may_go_back = saved_step_ >= 0},
                     resources_->model(), resources_->optimizer(), guard_, resources_->stream());
  outcome.batch.precision.weights = update.weights;
  outcome.gradient_norm = update.gradient_norm;
  outcome.judgement = update.judgement;
  if (update.judgement.verdict == StepVerdict::apply) ++state_.updates;
  ++state_.step;
  ++state_.phase_steps;
  state_.phase_samples += outcome.sequences;
  state_.tokens += static_cast<std::int64_t>(outcome.batch.tokens);
  state_.loss = update.loss;
  state_.guard = guard_.state();
  whole_ = true;
  outcome.seconds = meter_.elapsed_seconds() - begin;
  return outcome;
}

// Rank 0 decides, since time and signals differ between ranks; all ranks learn the same.
Trainer::Decision Trainer::decide() {
  double stop = stop_requested() ? 1.0 : 0.0;
  if (world_.size() > 1) {
    const Meter::Scope exchanging(meter_, Category::exposed_communication);
    world_.all_reduce(view_of(&stop, DType::f64, {1}), Reduction::max);
  }
  if (stop != 0) request_stop(true);
  Decision decision;
  if (leads()) decision = decide_alone();
  if (world_.size() == 1) return decision;

  const Meter::Scope exchanging(meter_, Category::exposed_communication);
  const HorizonDecision horizon = decision.horizon.value_or(HorizonDecision{});
  std::array<double, 10> words = {static_cast<double>(decision.verdict),
                                  decision.next_phase ? 1.0 : 0.0,
                                  decision.evaluate ? 1.0 : 0.0,
                                  decision.checkpoint ? 1.0 : 0.0,
                                  decision.horizon ? 1.0 : 0.0,
                                  static_cast<double>(horizon.step),
                                  horizon.progress,
                                  static_cast<double>(horizon.end_step),
                                  horizon.end_progress,
                                  static_cast<double>(horizon.phase)};
  world_.broadcast(view_of(words.data(), DType::f64, {static_cast<std::int64_t>(words.size())}), 0);
  decision.verdict = static_cast<Verdict>(words[0]);
  decision.next_phase = words[1] != 0;
  decision.evaluate = words[2] != 0;
  decision.checkpoint = words[3] != 0;
  decision.horizon.reset();
  if (words[4] != 0) {
    decision.horizon = HorizonDecision{.step = static_cast<std::int64_t>(words[5]),
                                       .progress = words[6],
                                       .end_step = static_cast<std::int64_t>(words[7]),
                                       .end_progress = words[8],
                                       .phase = static_cast<int>(words[9])};
  }
  return decision;
}

Trainer::Decision Trainer::decide_alone() {
  Decision decision;
  const auto due = [this](std::int64_t every, std::int64_t last) {
    return every > 0 && state_.step > 0 && state_.step % every == 0 && state_.step != last;
  };
  if (stop_requested()) {
    decision.verdict = Verdict::preempted;
    return decision;
  }
  if (horizon_reached()) {
    decision.verdict = Verdict::done;
    return decision;
  }
  const CapDecision cap = cap_->may_step(meter_.elapsed_seconds());
  if (!cap.step) {
    announce(fmt::format("{}: the next step and what must follow no longer fit", cap.reason));
    // A limit of this job leaves the run unfinished: the next job goes on.
    const bool job = cap.reason == "budget.job_hours";
    if (job && state_.step == first_step_) {
      fail(ExitCode::no_progress,
           "budget.job_hours: {:.3g} s of a job leave no room for a step before what must follow ({:.3g} s); give jobs "
           "more time",
           cap_->cap().job_hours * 3600, cap_->reserve_seconds());
    }
    decision.verdict = job ? Verdict::preempted : Verdict::budget;
    return decision;
  }
  // What is due now is put off to the ending when it would leave no room for a step.
  double before_step = 0;
  const auto fits = [&](Ending ending) {
    const double seconds = before_step + cap_->expected_seconds(ending);
    if (!cap_->may_step(meter_.elapsed_seconds(), seconds).step) return false;
    before_step = seconds;
    return true;
  };
  const bool overdue = recipe_.checkpoint.every_minutes > 0 && state_.step != saved_step_ &&
                       meter_.elapsed_seconds() - saved_at_ > recipe_.checkpoint.every_minutes * 60;
  // A loss that is no number may come from weights that are none: the next one tells.
  decision.checkpoint = (overdue || due(recipe_.checkpoint.every_steps, saved_step_)) && std::isfinite(state_.loss) &&
                        fits(Ending::checkpoint);
  decision.evaluate =
      evaluator_ != nullptr && due(recipe_.evaluation.every_steps, evaluated_step_) && fits(Ending::evaluation);
  decision.horizon = replan();
  if (decision.horizon) ledger_->horizon(*decision.horizon);
  decision.next_phase = phase_finished() && state_.phase + 1 < static_cast<int>(recipe_.phases.size());
  return decision;
}

// With a budget horizon the plan of the last step follows the measured speed.
std::optional<HorizonDecision> Trainer::replan() {
  if (recipe_.schedule.horizon != Horizon::budget) return std::nullopt;
  const HorizonState now = {.step = state_.step,
                            .progress = progress(),
                            .phase = state_.phase,
                            .remaining_seconds = cap_->remaining_of_cap(meter_.elapsed_seconds()),
                            .step_seconds = cap_->steps().typical(),
                            .slow_step_seconds = cap_->steps().slow()};
  return plan_horizon(now, phase_ends_, state_.decisions.empty() ? nullptr : &state_.decisions.back());
}

// The share of the whole horizon that is behind.
double Trainer::progress() const {
  const std::size_t index = static_cast<std::size_t>(state_.phase);
  const double from = index == 0 ? 0.0 : phase_ends_[index - 1];
  const auto within = [&](std::int64_t done, std::int64_t all) {
    return from + (phase_ends_[index] - from) * std::min(1.0, static_cast<double>(done) / static_cast<double>(all));
  };
  switch (recipe_.schedule.horizon) {
    case Horizon::tokens: return within(state_.phase_samples * phase().sequence, phase().tokens);
    case Horizon::steps: return within(state_.phase_steps, phase().steps);
    case Horizon::budget: break;
  }
  return progress_at(state_.decisions, state_.step);
}

bool Trainer::phase_finished() const {
  switch (recipe_.schedule.horizon) {
    case Horizon::tokens: return state_.phase_samples * phase().sequence >= phase().tokens;
    case Horizon::steps: return state_.phase_steps >= phase().steps;
    case Horizon::budget: break;
  }
  return progress() >= phase_ends_[static_cast<std::size_t>(state_.phase)] - 1e-9;
}

// A budget horizon is reached by the budget alone: speed may yet leave room for another step.
bool Trainer::horizon_reached() const {
  return recipe_.schedule.horizon != Horizon::budget && state_.phase + 1 == static_cast<int>(recipe_.phases.size()) &&
         phase_finished();
}

ExitCode Trainer::run() {
  if (over_) return ExitCode::done;
  try {
    const Verdict verdict = finish(train());
    return verdict == Verdict::preempted ? ExitCode::preempted : ExitCode::done;
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    const std::string kept = keep_what_is_whole(error);
    const Error whole(error.code(), fmt::format("{}{}{}", error.what(), kept.empty() ? "" : "\n", kept));
    give_up(whole);
    if (shared_error_) await_the_others();
    throw whole;
  }
}

}  // namespace shoestring
