// How the weights of an earlier step come back: past data that spoilt them, or at the end of a phase whose held-out
// loss no longer falls.
#include <fmt/core.h>

#include "core/training/trainer.h"

namespace shoestring {

// For the phase's patience; all ranks have the same loss.
void Trainer::judge_held_out(double loss) {
  const bool better = !state_.best_held_out || loss < *state_.best_held_out;
  if (better) {
    state_.best_held_out = loss;
    state_.best_step = state_.step;
  }
  state_.stale_evaluations = better ? 0 : state_.stale_evaluations + 1;
  if (early_stop(recipe_, state_)) {
    account_->say(fmt::format("step {}: {} evaluations without a better held-out loss than {:.4f}: the phase ends",
                              state_.step, state_.stale_evaluations, *state_.best_held_out));
    return_to_best();
  }
}

bool Trainer::best_is_unsaved() const {
  const PhaseSpec& phase = recipe_.phases[static_cast<std::size_t>(state_.phase)];
  return phase.patience > 0 && state_.best_step == state_.step && snapshots_.step() != state_.step;
}

// A phase that patience ends leaves the weights that did best, not its last ones.
void Trainer::return_to_best() {
  watch_.works_on_files(fmt::format("going back to the best weights, of step {}", state_.best_step));
  const Meter::Scope timing(meter_, Category::checkpoint);
  const std::filesystem::path best = snapshots_.of_step(state_.best_step);
  if (best.empty()) {
    return account_->say(fmt::format(
        "step {}, the best on held-out text, has no sound checkpoint: the last weights stay", state_.best_step));
  }
  Engine::Change change(*engine_);
  Snapshots::load(best, parts());
  resources_->model().prepare();
  state_.updates = Snapshots::state_of(best).updates;
  change.kept();
  snapshots_.loaded(state_.best_step);  // under the present step they are yet to be saved
  if (static_cast<std::size_t>(state_.phase) + 1 == recipe_.phases.size()) evaluated_step_ = state_.best_step;
  account_->say(fmt::format("step {}: the weights are those of {}, the best on held-out text", state_.step,
                            best.filename().string()));
}

// To the weights of the newest sound checkpoint and past the data since then. Saved at once: the decision holds for
// every later start, wherever it comes from.
void Trainer::go_back() {
  watch_.works_on_files(fmt::format("going back from step {}", state_.step));
  std::filesystem::path from;
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    from = snapshots_.newest(looking());
    TrainingState then;
    if (!from.empty()) then = Snapshots::state_of(from);
    if (took_other_weights_since(then.phase)) from.clear();
    if (!from.empty()) {
      Engine::Change change(*engine_);
      Snapshots::load(from, parts());
      resources_->model().prepare();
      state_.updates = then.updates;
      engine_->guard().went_back(then.phase == state_.phase ? then.guard : GuardState{});
      change.kept();
    } else {
      engine_->guard().stayed();
    }
  }
  state_.guard = engine_->guard().state();
  if (from.empty()) {
    return account_->say(
        fmt::format("step {}: no checkpoint of these weights is there: the step was skipped", state_.step));
  }
  account_->say(
      fmt::format("step {}: went back to the weights of {}, past the data since then", state_.step, from.string()));
  save();
}

}  // namespace shoestring
