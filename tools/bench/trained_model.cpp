#include "tools/bench/trained_model.h"

#include "core/optimizer/learning_rate.h"
#include "kernels/base/check.h"

namespace shoestring {

TrainedModel::TrainedModel(Recipe recipe)
    : recipe_(std::move(recipe)),
      meter_(system_clock()),
      world_(self_communicator()),
      mesh_(*world_, {}),
      resources_(recipe_, layout_of(recipe_, 0, 1), mesh_, {}),
      engine_(recipe_, {resources_.model(), resources_.optimizer(), resources_.stream()}, mesh_, 1, meter_),
      plan_(recipe_.phases.at(0), 1, 1),
      loader_(resources_.train_loader(0)) {
  resources_.model().initialise(recipe_.run.seed);
  resources_.model().prepare();
  feed_ = std::make_unique<LoaderFeed>(*loader_, plan_, 0, 0, recipe_.data.prefetch);
}

std::int64_t TrainedModel::tokens_per_step() const { return plan_.phase().global_batch * plan_.phase().sequence; }

double TrainedModel::step() {
  const StepOutcome step = engine_.step({.plan = plan_,
                                         .feed = *feed_,
                                         .samples = samples_,
                                         .update = steps_ + 1,
                                         .learning_rate = learning_rate(recipe_.schedule, steps_ + 1, 0)});
  check(step.judgement.verdict == StepVerdict::apply, "step {} was skipped: {}", steps_ + 1, step.judgement.why);
  samples_ += step.sequences;
  ++steps_;
  loss_ = step.loss;
  return step.seconds;
}

}  // namespace shoestring
