// What surrounds the training loop: saving, going back, evaluating.
#include "core/training/model_files.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"

namespace shoestring {

// To the weights of the newest sound checkpoint and past the data since then. Saved at once: the decision holds for
// every later start, wherever it comes from.
void Trainer::go_back() {
  std::string from;
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    from = newest_checkpoint();
    if (!from.empty()) {
      const CheckpointReader reader(from);
      const TrainingState then = training_state_from_json(reader.state_json(), from);
      Engine::Change change(*engine_);
      load_weights(reader, resources_->model());
      load_optimizer(reader, resources_->optimizer());
      resources_->model().prepare();
      state_.updates = then.updates;
      engine_->guard().went_back(then.phase == state_.phase ? then.guard : GuardState{});
      change.kept();
    } else {
      engine_->guard().stayed();
    }
  }
  state_.guard = engine_->guard().state();
  if (from.empty())
    return account_->say(fmt::format("step {}: no checkpoint is there: the step was skipped", state_.step));
  account_->say(fmt::format("step {}: went back to the weights of {}, past the data since then", state_.step, from));
  save();
}

void Trainer::save() { save(recipe_.checkpoint.keep); }

void Trainer::save(int keep) {
  if (saved_step_ == state_.step) return;
  const double begin = meter_.elapsed_seconds();
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    shared_error_ = true;  // every rank has the same weights
    engine_->check_finite(state_.step);
    shared_error_ = false;
    const LongerWait waiting(world_, kLongestFileWork);
    if (leads()) write_checkpoint(keep);
    world_.barrier();
  }
  saved_step_ = state_.step;
  saved_at_ = meter_.elapsed_seconds();
  account_->saved(commit_of(begin), spent());
}

// Rank 0's part of it.
void Trainer::write_checkpoint(int keep) {
  saving_ = true;
  checkpoints_.save(
      state_.step,
      checkpoint_content(resources_->model(), resources_->optimizer(), resources_->tokenizer(), to_json(state_)), keep,
      [this](const std::string& text) { account_->note("checkpoints", text); });
  saving_ = false;
}

CheckpointCommit Trainer::commit_of(double begin) const {
  return {.step = state_.step,
          .tokens = state_.tokens,
          .name = fmt::format("step_{:08}", state_.step),
          .bytes = resources_->model().memory().parameters + resources_->optimizer().state_bytes(),
          .took_seconds = saved_at_ - begin};
}

// A signal makes it futile; the cap only makes it shorter. After the `last` one no step comes.
bool Trainer::evaluate(bool last) {
  const double begin = meter_.elapsed_seconds();
  double most_seconds = account_->seconds_for_evaluation(saved_step_ == state_.step, last);
  if (world_.size() > 1) world_.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  Evaluator::Outcome outcome;
  {
    const Meter::Scope timing(meter_, Category::evaluation);
    outcome = evaluator_->run(state_.step, stop_requested, most_seconds);
  }
  if (outcome.stopped) return false;
  evaluated_step_ = state_.step;
  const CategorySeconds all = spent();
  account_->evaluated(outcome, meter_.elapsed_seconds() - begin, all);
  return true;
}

// Since the start of the attempt, summed over ranks. Collective.
CategorySeconds Trainer::spent() {
  CategorySeconds spent = meter_.read();
  if (world_.size() > 1) world_.all_reduce(view_of(spent.seconds.data(), DType::f64, {kCategories}));
  return spent;
}

}  // namespace shoestring
