#include "core/training/engine.h"

#include "core/optimizer/clip.h"
#include "kernels/base/check.h"
#include "kernels/reduce.h"

namespace shoestring {

Engine::Engine(const Recipe& recipe, const EngineParts& parts, Mesh& mesh, int groups, Meter& meter)
    : recipe_(recipe),
      parts_(parts),
      meter_(meter),
      guard_(recipe.guard, recipe.optimizer.clip),
      pass_(parts.model, mesh, groups, parts.stream, meter) {}

StepOutcome Engine::step(const StepArgs& args) {
  const double begin = meter_.elapsed_seconds();
  StepOutcome outcome;
  outcome.sequences = args.plan.global_batch(args.samples);
  outcome.learning_rate = args.learning_rate;
  const CategorySeconds before = meter_.read();
  outcome.batch = pass_.run(args.plan, args.samples, args.feed, args.stop);
  if (outcome.batch.abandoned) {
    meter_.write_off(before);
    return outcome;
  }
  {
    const Meter::Scope computing(meter_, Category::compute);
    Change change(*this);
    update(args, outcome);
    outcome.guard = guard_.state();
    change.kept();
  }
  outcome.seconds = meter_.elapsed_seconds() - begin;
  return outcome;
}

// From the summed gradient: judge, clip, move, refresh.
void Engine::update(const StepArgs& args, StepOutcome& outcome) {
  auto& [model, optimizer, stream] = parts_;
  PassResult& batch = outcome.batch;
  const double scale = batch.tokens > 0 ? 1.0 / batch.tokens : 0.0;
  outcome.loss = batch.loss * scale;
  outcome.gradient_norm = gradient_norm(model.store(), scale, stream);
  outcome.judgement = guard_.judge(outcome.loss, outcome.gradient_norm, args.may_go_back);
  if (outcome.judgement.verdict != StepVerdict::apply) return;
  const double clip = clip_factor(outcome.gradient_norm, outcome.judgement.norm_limit);
  optimizer.step({.learning_rate = args.learning_rate, .gradient_scale = scale * clip, .number = args.update}, stream);
  if (!batch.router_counts.empty()) model.update_router_biases(batch.router_counts, recipe_.model.bias_speed);
  batch.precision.weights = model.prepare();
}

void Engine::check_finite(std::int64_t step) {
  bool finite = all_finite(parts_.model.store().values, parts_.stream);
  for (const OptimizerState& state : parts_.optimizer.state()) {
    finite = finite && all_finite(state.data, parts_.stream);
  }
  if (finite) return;
  whole_ = false;
  fail(ExitCode::non_finite,
       "step {}: weights or optimizer state hold numbers that are not finite, and are not saved; lower the learning "
       "rate or take a wider number format, and go on from an earlier checkpoint",
       step);
}

}  // namespace shoestring
