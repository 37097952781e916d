// How the weights of an earlier step come back: past data that spoilt them, or at the end of a phase whose held-out
// loss no longer falls.
#include <fmt/core.h>

#include <cmath>

#include "core/training/trainer.h"

namespace shoestring {

// For the phase's patience; all ranks have the same loss.
void Trainer::judge_held_out(double loss) {
  const bool better = std::isfinite(loss) && (!attempt_.state.best_held_out || loss < *attempt_.state.best_held_out);
  if (better) {
    attempt_.state.best_held_out = loss;
    attempt_.state.best_step = attempt_.state.step;
  }
  attempt_.state.stale_evaluations = better ? 0 : attempt_.state.stale_evaluations + 1;
  if (early_stop(recipe_, attempt_.state)) {
    account_->say(fmt::format("step {}: {} evaluations without a better held-out loss than {}: the phase ends",
                              attempt_.state.step, attempt_.state.stale_evaluations,
                              attempt_.state.best_held_out ? fmt::format("{:.4f}", *attempt_.state.best_held_out)
                                                           : std::string("one that is finite")));
    if (attempt_.state.best_held_out) return_to_best();
  }
}

bool Trainer::best_is_unsaved() const {
  const PhaseSpec& phase = recipe_.phases[static_cast<std::size_t>(attempt_.state.phase)];
  return phase.patience > 0 && attempt_.state.best_step == attempt_.state.step &&
         snapshots_.step() != attempt_.state.step;
}

// A phase that patience ends leaves the weights that did best, not its last ones.
void Trainer::return_to_best() {
  seat_.watch.works_on_files(fmt::format("going back to the best weights, of step {}", attempt_.state.best_step));
  const Meter::Scope timing(timing_.meter, Category::checkpoint);
  const std::filesystem::path best = snapshots_.of_step(attempt_.state.best_step);
  if (best.empty()) {
    return account_->say(
        fmt::format("step {}, the best on held-out text, has no sound checkpoint: the last weights stay",
                    attempt_.state.best_step));
  }
  Engine::Change change(*work_.engine);
  Snapshots::load(best, parts());
  work_.resources->model().prepare();
  attempt_.state.updates = Snapshots::state_of(best).updates;
  change.kept();
  attempt_.state.guard.broken_in_row = 0;  // of other weights
  work_.engine->guard().restore(attempt_.state.guard);
  snapshots_.loaded(attempt_.state.best_step);  // under the present step they are yet to be saved
  if (static_cast<std::size_t>(attempt_.state.phase) + 1 == recipe_.phases.size())
    attempt_.evaluated_step = attempt_.state.best_step;
  account_->say(fmt::format("step {}: the weights are those of {}, the best on held-out text", attempt_.state.step,
                            best.filename().string()));
}

// To the weights of the newest sound checkpoint and past the data since then. Saved at once: the decision holds for
// every later start, wherever it comes from.
void Trainer::go_back() {
  seat_.watch.works_on_files(fmt::format("going back from step {}", attempt_.state.step));
  std::filesystem::path from;
  {
    const Meter::Scope timing(timing_.meter, Category::checkpoint);
    from = snapshots_.newest(looking());
    TrainingState then;
    if (!from.empty()) then = Snapshots::state_of(from);
    if (took_other_weights_since(then.phase)) from.clear();
    if (!from.empty()) {
      Engine::Change change(*work_.engine);
      Snapshots::load(from, parts());
      work_.resources->model().prepare();
      attempt_.state.updates = then.updates;
      work_.engine->guard().went_back(then.phase == attempt_.state.phase ? then.guard : GuardState{});
      change.kept();
    } else {
      work_.engine->guard().stayed();
    }
  }
  attempt_.state.guard = work_.engine->guard().state();
  if (from.empty()) {
    return account_->say(
        fmt::format("step {}: no checkpoint of these weights is there: the step was skipped", attempt_.state.step));
  }
  account_->say(fmt::format("step {}: went back to the weights of {}, past the data since then", attempt_.state.step,
                            from.string()));
  save();
}

}  // namespace shoestring
