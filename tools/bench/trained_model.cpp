#include "tools/bench/trained_model.h"

#include "core/optimizer/learning_rate.h"
#include "core/training/weight_update.h"
#include "kernels/base/check.h"
#include "tools/bench/calibration.h"

namespace shoestring {

TrainedModel::TrainedModel(Recipe recipe)
    : recipe_(std::move(recipe)),
      meter_(system_clock()),
      world_(self_communicator()),
      resources_(recipe_, 1),
      pass_(resources_.model(), *world_, 1, resources_.stream(), meter_),
      guard_(recipe_.guard, recipe_.optimizer.clip),
      plan_(recipe_.phases.at(0), 1, 1),
      loader_(resources_.train_loader(0)) {
  resources_.model().initialise(recipe_.run.seed);
  resources_.model().prepare();
  feed_ = std::make_unique<LoaderFeed>(*loader_, plan_, 0, 0, recipe_.data.prefetch);
}

std::int64_t TrainedModel::tokens_per_step() const { return plan_.phase().global_batch * plan_.phase().sequence; }

double TrainedModel::step() {
  const double begin = now_seconds();
  const PassResult batch = pass_.run(plan_, samples_, *feed_);
  const WeightUpdate update = update_weights({.recipe = recipe_,
                                              .batch = batch,
                                              .number = steps_ + 1,
                                              .learning_rate = learning_rate(recipe_.schedule, steps_ + 1, 0)},
                                             resources_.model(), resources_.optimizer(), guard_, resources_.stream());
  check(update.judgement.verdict == StepVerdict::apply, "step {} was skipped: {}", steps_ + 1, update.judgement.why);
  samples_ += plan_.global_batch(samples_);
  ++steps_;
  loss_ = update.loss;
  return now_seconds() - begin;
}

}  // namespace shoestring
