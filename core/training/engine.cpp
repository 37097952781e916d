#include "core/training/engine.h"

#include "core/optimizer/clip.h"
#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/reduce.h"

namespace shoestring {
namespace {

std::optional<ParameterShards> shards_of(const Recipe& recipe, Transformer& model, const Mesh& mesh) {
  if (!recipe.parallel.shard_optimizer) return std::nullopt;
  return ParameterShards(model.store(), recipe.optimizer.name, mesh.shape(), mesh.at());
}

}  // namespace

std::unique_ptr<Optimizer> optimizer_of(const Recipe& recipe, Transformer& model, const Mesh& mesh, int workers) {
  const std::optional<ParameterShards> shards = shards_of(recipe, model, mesh);
  return make_optimizer(recipe.optimizer, recipe.precision.moments,
                        shards ? shards->parts() : whole_parts(model.parameters()), workers);
}

Engine::Engine(const Recipe& recipe, const EngineParts& parts, Mesh& mesh, int groups, Meter& meter,
               ScheduleChoice schedule)
    : recipe_(recipe),
      parts_(parts),
      mesh_(mesh),
      meter_(meter),
      guard_(recipe.guard, recipe.optimizer.clip),
      shards_(shards_of(recipe, parts.model, mesh)),
      pass_(parts.model, mesh, groups, parts.stream, meter, schedule, shards_ ? &*shards_ : nullptr),
      norm_(parts.model, mesh.shape(), mesh.at(), shards_ ? &*shards_ : nullptr) {}

StepOutcome Engine::step(const StepArgs& args) {
  const double begin = meter_.elapsed_seconds();
  StepOutcome outcome;
  outcome.sequences = args.plan.global_batch(args.samples);
  outcome.learning_rate = args.learning_rate;
  const CategorySeconds before = meter_.read();
  outcome.batch = pass_.run(args.plan, args.samples, args.feed, args.stops, [&] { return norm_.begin(parts_.stream); });
  if (outcome.batch.abandoned) {
    meter_.write_off(before);
    return outcome;
  }
  {
    const Meter::Scope computing(meter_, Category::compute);
    update(args, outcome);
    waits_ += outcome.batch.waits;
    ++steps_;
    outcome.guard = guard_.state();
  }
  outcome.seconds = meter_.elapsed_seconds() - begin;
  return outcome;
}

// From the summed gradient: judge, clip, move, refresh. The weights are those of no step from the optimizer on.
void Engine::update(const StepArgs& args, StepOutcome& outcome) {
  auto& [model, optimizer, stream] = parts_;
  PassResult& batch = outcome.batch;
  if (!(batch.weight > 0)) {
    fail(ExitCode::bad_data,
         "the {} sequences from number {} of the phase hold nothing to train on ({} tokens of weight {}); give steps "
         "larger batches, or build the shards of conversations anew",
         outcome.sequences, args.samples, batch.tokens, batch.weight);
  }
  const double scale = 1.0 / batch.weight;
  outcome.loss = batch.loss * scale;
  outcome.gradient_norm = norm_.finish(scale);
  outcome.judgement = guard_.judge(outcome.loss, outcome.gradient_norm, args.may_go_back);
  if (outcome.judgement.verdict != StepVerdict::apply) return;
  const double clip = clip_factor(outcome.gradient_norm, outcome.judgement.norm_limit);
  Change change(*this);
  optimizer.step({.learning_rate = args.learning_rate,
                  .gradient_scale = scale * clip,
                  .number = args.update,
                  .waits = &batch.waits},
                 stream);
  if (shards_) gather_weights();
  if (!batch.router_counts.empty()) model.update_router_biases(batch.router_counts, recipe_.model.bias_speed);
  model.prepare_trained();
  change.kept();
}

// Every rank moved its share.
void Engine::gather_weights() {
  const Meter::Scope exchanging(meter_, Category::exposed_communication);
  ParameterStore& store = parts_.model.store();
  all_gather_shards(mesh_.data(), shards_->dense(), store.values_of(store.dense));
  if (!store.experts.empty()) all_gather_shards(mesh_.replica(), shards_->experts(), store.values_of(store.experts));
}

bool Engine::finite() {
  Workers alone(1);
  Stream host(alone);  // for state that is not where the weights are
  bool finite = all_finite(parts_.model.store().values, parts_.stream);
  for (const OptimizerState& state : parts_.optimizer.state()) {
    finite = finite && all_finite(state.data, state.data.device == parts_.stream.device() ? parts_.stream : host);
  }
  return finite;
}

void Engine::check_finite(std::int64_t step) {
  double broken = finite() ? 0 : 1;
  if (mesh_.world().size() > 1) mesh_.world().all_reduce(view_of(&broken, DType::f64, {1}), Reduction::max);
  require_finite(broken == 0, step);
}

void Engine::require_finite(bool finite, std::int64_t step) {
  if (finite) return;
  whole_ = false;
  fail(ExitCode::non_finite,
       "step {}: weights or optimizer state hold numbers that are not finite, and are not saved; lower the learning "
       "rate or take a wider number format, and go on from an earlier checkpoint",
       step);
}

}  // namespace shoestring
