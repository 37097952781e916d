#include "core/training/speed_trial.h"

#include <algorithm>

#include "core/optimizer/learning_rate.h"
#include "core/training/engine.h"
#include "core/training/evaluation.h"
#include "core/training/run_resources.h"
#include "core/training/signals.h"
#include "kernels/base/check.h"
#include "parallel/communicator_threads.h"

namespace shoestring {
namespace {

constexpr int kWarmingSteps = 2;
constexpr int kLeastSteps = 3;

class Trial {
 public:
  Trial(const Recipe& recipe, const Clock& clock)
      : recipe_(recipe),
        meter_(clock),
        world_(ThreadWorld(1).communicator(0)),
        mesh_(*world_, {}),
        resources_(recipe, layout_of(recipe, 0, 1), mesh_, 1),
        groups_(std::max(1, recipe.parallel.reduction_groups)),
        engine_(recipe_, {resources_.model(), resources_.optimizer(), resources_.stream()}, mesh_, groups_, meter_) {
    resources_.model().initialise(recipe.run.seed);
    resources_.model().prepare();
  }

  Speeds run(double seconds_per_phase) {
    Speeds speeds{.startup_seconds = 0, .checkpoint_seconds = resources_.guessed_checkpoint_seconds(), .phases = {}};
    for (int phase = 0; phase < static_cast<int>(recipe_.phases.size()); ++phase) {
      const std::unique_ptr<Loader> loader = resources_.train_loader(phase);
      if (phase == 0) speeds.startup_seconds = meter_.elapsed_seconds();
      PhaseSpeed& speed = speeds.phases.emplace_back(steps(phase, *loader, seconds_per_phase));
      std::vector<std::unique_ptr<Loader>> held_out = resources_.validation_loaders(phase);
      if (held_out.empty()) continue;
      speed.evaluation_seconds = Evaluator(resources_.model(), mesh_, std::move(held_out), recipe_.evaluation,
                                           recipe_.phases[static_cast<std::size_t>(phase)].micro_batch)
                                     .estimate_seconds(stop_requested);
    }
    return speeds;
  }

 private:
  PhaseSpeed steps(int phase, const Loader& loader, double seconds) {
    PhaseSpec spec = recipe_.phases[static_cast<std::size_t>(phase)];
    spec.batch_ramp_from = 0;  // the full batch from the first step
    const BatchPlan plan(spec, groups_, 1);
    LoaderFeed feed(loader, plan, 0, 0, recipe_.data.prefetch);
    double tokens = 0;
    double spent = 0;
    int counted = 0;
    std::int64_t samples = 0;
    for (int i = 0; counted < kLeastSteps || spent < seconds; ++i) {
      ++updates_;
      const StepOutcome step = engine_.step({.plan = plan,
                                             .feed = feed,
                                             .samples = samples,
                                             .update = updates_,
                                             .learning_rate = learning_rate(recipe_.schedule, updates_, 0)});
      if (step.judgement.verdict == StepVerdict::end) {
        fail(ExitCode::non_finite,
             "the speed trial: step {}, {}, and so the steps before it; look at the recipe's "
             "learning rate and precision",
             updates_, step.judgement.why);
      }
      samples += step.sequences;
      if (i < kWarmingSteps) continue;
      spent += step.seconds;
      tokens += step.batch.tokens;
      ++counted;
    }
    engine_.guard().forget();
    // The mean, slow moments included: the run will have them too.
    return {.step_seconds = spent / counted, .tokens_per_step = tokens / counted, .evaluation_seconds = 0};
  }

  const Recipe& recipe_;
  Meter meter_;
  std::unique_ptr<Communicator> world_;
  Mesh mesh_;
  RunResources resources_;
  int groups_;
  Engine engine_;
  std::int64_t updates_ = 0;
};

}  // namespace

Speeds try_speed(const Recipe& recipe, const Clock& clock, double seconds_per_phase) {
  return Trial(recipe, clock).run(seconds_per_phase);
}

}  // namespace shoestring
