// Model, optimizer, pass and guard: one training step, whoever asks for it. The trainer, the speed trial and the step
// bench take their steps here.
//
// A step is: the gradient of a global batch (pass.h), judged by the guard, clipped, moved by the optimizer; router
// biases moved by the loads of the whole batch; the compute copies of what moved made anew.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "core/budget/meter.h"
#include "core/model/transformer.h"
#include "core/optimizer/clip.h"
#include "core/optimizer/optimizer.h"
#include "core/recipe/recipe.h"
#include "core/training/batch_plan.h"
#include "core/training/feed.h"
#include "core/training/guard.h"
#include "core/training/pass.h"

namespace shoestring {

struct StepArgs {
  const BatchPlan& plan;
  Feed& feed;                ///< stands at the batch
  std::int64_t samples = 0;  ///< of the phase, before this batch
  std::int64_t update = 1;   ///< its number, from 1, should the weights move
  double learning_rate = 0;
  bool may_go_back = false;  ///< see Guard::judge
  PassStops stops = {};      ///< a step that they end changes nothing, and its time is lost
};

/// The same on every rank, but for the seconds.
struct StepOutcome {
  PassResult batch;  ///< where it is abandoned, nothing else holds, and the engine takes no further step
  std::int64_t sequences = 0;
  double loss = 0;           ///< mean over the trained tokens, by their weights
  double gradient_norm = 0;  ///< of the mean gradient, before clipping
  double learning_rate = 0;
  Judgement judgement;  ///< the weights moved if its verdict is apply
  GuardState guard;     ///< after it
  double seconds = 0;
};

/// What an engine moves.
struct EngineParts {
  Transformer& model;
  Optimizer& optimizer;
  Stream& stream;
};

/// The optimizer of what this rank moves: every weight it holds, or its share of them (parallel.shard_optimizer).
/// `model` has its memory.
std::unique_ptr<Optimizer> optimizer_of(const Recipe& recipe, Transformer& model, const Mesh& mesh, int workers);

class Engine {
 public:
  /// All must outlive it; the model's weights are there and prepared before the first step, and the optimizer has what
  /// optimizer_of gives it. `groups` reduction groups over the data axis of `mesh`, `schedule` over its pipeline axis.
  Engine(const Recipe& recipe, const EngineParts& parts, Mesh& mesh, int groups, Meter& meter,
         ScheduleChoice schedule = {});

  /// Collective. After an exception the engine is whole where the weights have not begun to move.
  StepOutcome step(const StepArgs& args);

  /// As Pass.
  void make_room(const BatchPlan& plan, std::int64_t samples) { pass_.make_room(plan, samples); }

  Guard& guard() { return guard_; }
  const Pass& pass() const { return pass_; }
  /// Where the host waited for its device in all steps, in words; empty on a CPU.
  std::string waits_text() const { return shoestring::waits_text(waits_, steps_); }
  /// Whether this rank has the summed gradient of elements [begin, begin + elements) of a parameter's flat value, and
  /// moves them.
  bool owns(const Parameter& parameter, std::int64_t begin, std::int64_t elements) const {
    return !shards_ || shards_->owns(parameter, begin, elements);
  }

  /// While it lives, and ever after unless kept(), weights and optimizer are those of no step.
  class Change {
   public:
    explicit Change(Engine& engine) : engine_(engine) { engine_.whole_ = false; }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    void kept() { engine_.whole_ = true; }

   private:
    Engine& engine_;
  };
  /// Weights and optimizer are those between two steps: fit to be saved.
  bool whole() const { return whole_; }

  /// Weights that are no numbers are of no use to anybody, and must not push a sound checkpoint out: throws
  /// Error(non_finite), naming `step`, and the engine is not whole. Collective: what one rank finds ends all.
  void check_finite(std::int64_t step);
  /// The same of this rank's part, without asking the others.
  void check_finite_alone(std::int64_t step) { require_finite(finite(), step); }
  bool finite();

 private:
  void update(const StepArgs& args, StepOutcome& outcome);
  void gather_weights();
  void require_finite(bool finite, std::int64_t step);

  const Recipe& recipe_;
  EngineParts parts_;
  Mesh& mesh_;
  Meter& meter_;
  Guard guard_;
  std::optional<ParameterShards> shards_;  ///< where the recipe shares the optimizer's state
  Pass pass_;
  GradientNorm norm_;
  HostWaits waits_;  // of all steps
  std::int64_t steps_ = 0;
  bool whole_ = true;
};

}  // namespace shoestring
