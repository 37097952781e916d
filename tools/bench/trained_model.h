// A model on its way through training, step by step: what the trainer puts together, without its ledger, budget and
// checkpoints.
#pragma once

#include <memory>

#include "core/budget/meter.h"
#include "core/recipe/recipe.h"
#include "core/training/batch_plan.h"
#include "core/training/engine.h"
#include "core/training/run_resources.h"

namespace shoestring {

class TrainedModel {
 public:
  /// Memory, initial weights and data as `recipe` says; one phase, one rank.
  explicit TrainedModel(Recipe recipe);

  /// One whole step: forward, backward, clip, optimizer, compute copies. Returns its seconds.
  double step();
  double loss() const { return loss_; }
  std::int64_t tokens_per_step() const;

 private:
  Recipe recipe_;
  Meter meter_;
  std::unique_ptr<Communicator> world_;
  Mesh mesh_;
  RunResources resources_;
  Engine engine_;
  BatchPlan plan_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Feed> feed_;
  std::int64_t steps_ = 0;
  std::int64_t samples_ = 0;
  double loss_ = 0;
};

}  // namespace shoestring
