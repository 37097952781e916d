#include "core/training/speed_trial.h"

#include <fmt/core.h>

#include <array>
#include <optional>

#include "core/optimizer/learning_rate.h"
#include "core/training/engine.h"
#include "core/training/evaluation.h"
#include "core/training/run_resources.h"
#include "core/training/signals.h"
#include "core/training/stop_agreement.h"
#include "core/training/suite_evaluation.h"
#include "kernels/base/check.h"
#include "parallel/placement.h"

namespace shoestring {
namespace {

constexpr int kWarmingSteps = 2;
constexpr int kLeastSteps = 3;

// Before the first step ranks agree on nothing: whoever is asked tells the others.
void leave_if_asked(const Recipe& recipe) {
  if (stop_requested()) throw Error(ExitCode::preempted, left_trial_text(recipe));
}

class Trial {
 public:
  Trial(const Recipe& recipe, Seat& seat, const Clock& clock)
      : recipe_(recipe),
        seat_(seat),
        meter_(clock),
        resources_(recipe, seat.layout, seat.mesh, machine_share(recipe, seat.world)),
        groups_(reduction_groups(recipe, seat.layout, 0)),
        stop_(seat.world, clock, stop_requested) {
    resources_.model().initialise(recipe.run.seed, [&](std::int64_t, std::int64_t) { leave_if_asked(recipe); });
    begin_steps();
  }

  std::optional<Speeds> run(double seconds_per_phase) {
    Speeds speeds{
        .ranks = seat_.world.size(), .checkpoint_seconds = resources_.guessed_checkpoint_seconds(), .phases = {}};
    for (int phase = 0; phase < static_cast<int>(recipe_.phases.size()); ++phase) {
      seat_.watch.new_phase();
      seat_.watch.works_on_files(fmt::format("entering phase {} of the trial", phase + 1));
      const std::unique_ptr<Loader> loader = resources_.train_loader(phase);
      if (phase == 0) speeds.startup_seconds = meter_.elapsed_seconds();
      if (resources_.fit_to(phase)) begin_steps();
      meter_.enter(Category::idle);
      PhaseSpeed& speed = speeds.phases.emplace_back(steps(phase, *loader, seconds_per_phase));
      if (!left_) ask(phase, speed);
      if (!goes_on()) return std::nullopt;
    }
    speeds.trial_seconds = meter_.elapsed_seconds();
    return speeds;
  }

 private:
  void begin_steps() {
    resources_.model().prepare();
    engine_.emplace(recipe_, EngineParts{resources_.model(), resources_.optimizer(), resources_.stream()}, seat_.mesh,
                    groups_, meter_, seat_.layout.schedule);
  }
  PhaseSpeed steps(int phase, const Loader& loader, double seconds) {
    PhaseSpec spec = recipe_.phases[static_cast<std::size_t>(phase)];
    spec.batch_ramp_from = 0;  // the full batch from the first step
    const BatchPlan plan(spec, groups_, seat_.mesh.shape().data);
    LoaderFeed feed(loader, plan, 0, seat_.mesh.at().data, recipe_.data.prefetch);
    PhaseSpeed speed;
    double spent = 0;
    int counted = 0;
    std::int64_t samples = 0;
    for (int i = 0; goes_on(counted < kLeastSteps || spent < seconds); ++i) {
      ++updates_;
      seat_.watch.steps(fmt::format("step {} of the trial", updates_));
      const CategorySeconds before = meter_.read();
      stop_.begin();
      const StepOutcome step =
          engine_->step({.plan = plan,
                         .feed = feed,
                         .samples = samples,
                         .update = updates_,
                         .learning_rate = learning_rate(recipe_.schedule, updates_, 0),
                         .stops = {.all = [this] { return stop_.leave(); }, .own = stop_requested}});
      left_ = step.batch.abandoned;
      if (left_) return speed;
      if (step.judgement.verdict == StepVerdict::end) {
        fail(ExitCode::non_finite,
             "the speed trial: step {}, {}, and so the steps before it; look at the recipe's "
             "learning rate and precision",
             updates_, step.judgement.why);
      }
      seat_.watch.step_took(step.seconds);
      samples += step.sequences;
      if (i < kWarmingSteps) continue;
      spent += step.seconds;
      speed.parts += meter_.read() - before;
      speed.tokens_per_step += step.batch.text_tokens;
      ++counted;
    }
    if (left_) return speed;
    engine_->guard().forget();
    // The mean, slow moments included: the run will have them too.
    speed.step_seconds = spent / counted;
    speed.tokens_per_step /= counted;
    if (seat_.world.size() > 1) seat_.world.all_reduce(view_of(speed.parts.seconds.data(), DType::f64, {kCategories}));
    for (double& part : speed.parts.seconds) part /= counted * seat_.world.size();
    return speed;
  }

  /// Held-out text and questions.
  void ask(int phase, PhaseSpeed& speed) {
    const double begin = meter_.elapsed_seconds();
    seat_.watch.works_on_files("the trial's held-out text and questions");
    std::vector<std::unique_ptr<Loader>> held_out = resources_.validation_loaders(phase);
    if (!held_out.empty()) {
      speed.evaluation_seconds =
          Evaluator(resources_.model(), seat_.mesh, std::move(held_out), recipe_.evaluation,
                    recipe_.phases[static_cast<std::size_t>(phase)].micro_batch, seat_.layout.schedule)
              .estimate_seconds(stop_requested);
    }
    if (!resources_.suites(phase).empty()) {
      speed.suites_seconds = SuiteEvaluator(resources_.model(), seat_.mesh, resources_.tokenizer(),
                                            resources_.text_ids(), resources_.suites(phase), seat_.layout.schedule)
                                 .estimate_seconds(stop_requested);
    }
    speed.guess_seconds = meter_.elapsed_seconds() - begin;
  }

  // Whether the first rank wants more and no rank was asked to leave: the same on all.
  bool goes_on(bool more = true) {
    std::array<std::int64_t, 2> words = {seat_.world.rank() == 0 && more ? 1 : 0, left_ || stop_requested() ? 1 : 0};
    if (seat_.world.size() > 1) seat_.world.all_reduce(view_of(words.data(), DType::i64, {2}), Reduction::max);
    left_ = words[1] != 0;
    return words[0] != 0 && !left_;
  }

  const Recipe& recipe_;
  Seat& seat_;
  Meter meter_;
  RunResources resources_;
  int groups_;
  StopAgreement stop_;
  bool left_ = false;  ///< as asked
  std::optional<Engine> engine_;
  std::int64_t updates_ = 0;
};

}  // namespace

std::string left_trial_text(const Recipe& recipe) {
  return fmt::format(
      "the speed trial was left as asked; its time is charged to {}; nothing is stored, run the same command to "
      "measure anew",
      run_directory(recipe).string());
}

std::optional<Speeds> try_speed(const Recipe& recipe, Seat& seat, const Clock& clock, double seconds_per_phase) {
  return Trial(recipe, seat, clock).run(seconds_per_phase);
}

}  // namespace shoestring
