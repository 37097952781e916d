#include "core/training/weight_update.h"

#include "core/optimizer/clip.h"

namespace shoestring {

WeightUpdate update_weights(const WeightUpdateArgs& args, Transformer& model, Optimizer& optimizer, Guard& guard,
                            Stream& stream) {
  const PassResult& batch = args.batch;
  const double scale = batch.tokens > 0 ? 1.0 / batch.tokens : 0.0;
  WeightUpdate update;
  update.loss = batch.loss * scale;
  update.gradient_norm = gradient_norm(model.store(), scale, stream);
  update.judgement = guard.judge(update.loss, update.gradient_norm, args.may_go_back);
  if (update.judgement.verdict != StepVerdict::apply) return update;
  const double clip = clip_factor(update.gradient_norm, update.judgement.norm_limit);
  optimizer.step({.learning_rate = args.learning_rate, .gradient_scale = scale * clip, .number = args.number}, stream);
  if (!batch.router_counts.empty()) model.update_router_biases(batch.router_counts, args.recipe.model.bias_speed);
  update.weights = model.prepare();
  return update;
}

}  // namespace shoestring
