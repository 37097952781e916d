// Whole runs with a budget horizon, on a clock that only the test moves: the decisions are the trainer's, the durations
// are made up. Speed is disturbed, the program is killed, and the run must end inside its cap, with its decay finished.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/optimizer/learning_rate.h"
#include "core/training/decision.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

constexpr double kCapSeconds = 180;
constexpr double kStartup = 1.5;
constexpr double kCheckpoint = 0.5;
constexpr double kEvaluation = 1.5;

/// Factors on every duration, by the seconds of the run and by a random number in [0, 1).
using Disturbance = std::function<double(double now, double random)>;

/// Each step another factor of 0.7 to 1.3.
Disturbance by_step() {
  return [](double, double random) { return 0.7 + 0.6 * random; };
}
/// Other programs come and go: 4 seconds of slow steps in every 12, from `offset` on.
Disturbance by_bursts(double offset) {
  return [offset](double now, double) { return std::fmod(now + offset, 12) < 4 ? 1.3 : 0.7; };
}
/// The machine changes for good at one moment.
Disturbance from(double moment, double before, double after) {
  return [=](double now, double) { return now < moment ? before : after; };
}

struct Landing {
  double spent = 0;          ///< seconds charged
  double last_progress = 0;  ///< at which the last step was taken
  double at_final_rate = 0;  ///< share of steps
  double rates = 0;          ///< sum of the learning rates, over that of a plan that knew the number of steps
  std::int64_t steps = 0;    ///< of the model that comes out
  std::int64_t decisions = 0;
};

class Simulation {
 public:
  Simulation(double step_seconds, Disturbance disturbance, std::uint64_t seed)
      : step_seconds_(step_seconds), disturbance_(std::move(disturbance)), random_(seed, Purpose::test) {
    recipe_.schedule.horizon = Horizon::budget;
    recipe_.checkpoint.every_minutes = 0.25;
    recipe_.checkpoint.every_steps = 0;
    recipe_.evaluation.every_steps = static_cast<std::int64_t>(50 / step_seconds);
    recipe_.phases.resize(1);
    recipe_.phases.front().share = 1;
  }

  /// Killed at each of `kills`, in seconds charged.
  Landing run(const std::vector<double>& kills) {
    for (const double kill : kills) attempt(kill);
    attempt(INFINITY);
    return landing_;
  }

 private:
  double take(double seconds) {
    const double took = seconds * disturbance_(charged_ + elapsed_, random_.uniform(draw_++));
    elapsed_ += took;
    return took;
  }

  // From the checkpoint to the end, or to the moment at which it is killed.
  void attempt(double kill) {
    CapKeeper cap({kCapSeconds / 3600, "budget.gpu_hours", INFINITY}, 1, charged_, 0.1);
    cap.guess(Ending::checkpoint, 2 * kCheckpoint);
    cap.guess(Ending::evaluation, kEvaluation);
    TrainingState state = saved_;
    const std::int64_t first = state.step;
    elapsed_ = 0;
    take(kStartup);
    double saved_at = 0;
    std::int64_t saved_step = state.step;
    std::int64_t evaluated_step = -1;
    const auto alive = [&] { return charged_ + elapsed_ < kill; };
    while (alive()) {
      const Standing standing = {.state = state,
                                 .saved_step = saved_step,
                                 .evaluated_step = evaluated_step,
                                 .saved_at = saved_at,
                                 .held_out = true};
      const Decision decision = decide(recipe_, standing, elapsed_, cap);
      if (decision.horizon) state.decisions.push_back(*decision.horizon);
      if (decision.evaluate) {
        cap.measured(Ending::evaluation, take(kEvaluation));
        evaluated_step = state.step;
      }
      if (decision.save) {
        cap.measured(Ending::checkpoint, take(kCheckpoint));
        if (!alive()) break;
        saved_ = state;
        saved_at = elapsed_;
        saved_step = state.step;
        continue;
      }
      if (decision.stop != Stop::none) return land(state, decision.stop, cap);
      landing_.last_progress = progress_of(recipe_, state);
      cap.step_took(take(state.step == first ? 3 * step_seconds_ : step_seconds_), 1);
      ++state.step;
    }
    charged_ = std::max(charged_ + kStartup, kill);
  }

  // Saved first; the last evaluation is cut where it would outlast the cap.
  void land(const TrainingState& state, Stop stop, CapKeeper& cap) {
    EXPECT_EQ(stop, Stop::budget);
    cap.measured(Ending::checkpoint, take(kCheckpoint));
    const double evaluation = kEvaluation * disturbance_(charged_ + elapsed_, random_.uniform(draw_++));
    elapsed_ += std::min(cap.seconds_for_evaluation(elapsed_, true, true), evaluation);
    landing_.spent = charged_ + elapsed_;
    landing_.steps = state.step;
    landing_.decisions = static_cast<std::int64_t>(state.decisions.size());
    std::int64_t final = 0;
    for (std::int64_t step = 0; step < state.step; ++step) final += progress_at(state.decisions, step) >= 1 ? 1 : 0;
    landing_.at_final_rate = static_cast<double>(final) / static_cast<double>(state.step);
    landing_.rates =
        sum_of_rates([&](std::int64_t step) { return progress_at(state.decisions, step); }) /
        sum_of_rates([&](std::int64_t step) { return static_cast<double>(step) / static_cast<double>(state.step); });
  }

  /// Of a constant rate that decays to nothing over the last 0.3 of the way.
  double sum_of_rates(const std::function<double(std::int64_t step)>& progress) const {
    ScheduleSpec spec;
    spec.learning_rate = 1;
    spec.decay_fraction = 0.3;
    spec.final_fraction = 0;
    double sum = 0;
    for (std::int64_t step = 0; step < landing_.steps; ++step) sum += learning_rate(spec, step + 1, progress(step));
    return sum;
  }

  Recipe recipe_;
  double step_seconds_;
  Disturbance disturbance_;
  Random random_;
  std::uint64_t draw_ = 0;
  TrainingState saved_;
  double charged_ = 0;  ///< by earlier attempts
  double elapsed_ = 0;  ///< in this one
  Landing landing_;
};

// Without foresight the decay begins at a share of the time, not of the steps: where a machine changes its pace, they
// differ, and `off` bounds by how much.
void expect_landed(const Landing& landing, double off = 0.12, double least_progress = 0.995) {
  EXPECT_LE(landing.spent, kCapSeconds);
  EXPECT_GE(landing.spent, 0.97 * kCapSeconds);
  EXPECT_GE(landing.last_progress, least_progress);
  EXPECT_LE(landing.at_final_rate, 0.06);
  EXPECT_NEAR(landing.rates, 1, off);
  EXPECT_LE(landing.decisions, landing.steps / 2 + 40);
}

TEST(Landing, AnEvenRun) {
  for (const double step : {0.05, 0.3, 1.0}) {
    SCOPED_TRACE(step);
    expect_landed(Simulation(step, from(0, 1, 1), 1).run({}), 0.02);
  }
}

// As few as 75 steps, and half a minute in which other programs take half of the machine, at the start or later. The
// last step's rate is then a twentieth of the peak at most.
TEST(Landing, LongStepsBesideOtherWork) {
  for (const double busy : {0.0, 5.0, 60.0, 120.0, 150.0}) {
    const auto disturbed = [busy](double now, double random) {
      return (now >= busy && now < busy + 30 ? 1.9 : 1) * (0.95 + 0.1 * random);
    };
    for (const double step : {0.3, 1.0, 2.0}) {
      SCOPED_TRACE(testing::Message() << "busy from " << busy << " s on, steps of " << step);
      expect_landed(Simulation(step, disturbed, 1).run({}), 0.15, 0.98);
    }
  }
}

// The three kills fall early, in the middle, and into the decay, the last one 18 seconds before the cap at the latest:
// of what a kill at 10 seconds leaves, the start and the endings take so much that a decay can end at 0.87 of its way.
TEST(Landing, TenDisturbedRunsWithThreeKills) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto shift = static_cast<double>(seed);
    const std::vector<double> kills = {20 + 2.5 * shift, 80 + 3.1 * shift, 130 + 3.6 * shift};
    for (const double step : {0.1, 0.3}) {
      SCOPED_TRACE(testing::Message() << "seed " << seed << ", steps of " << step);
      expect_landed(Simulation(step, by_step(), seed).run(kills));
      expect_landed(Simulation(step, by_bursts(1.2 * shift), seed).run(kills));
      expect_landed(Simulation(step, from(60 + 12 * shift, 0.7, 1.3), seed).run(kills));
      expect_landed(Simulation(step, from(60 + 12 * shift, 1.3, 0.7), seed).run(kills));
    }
  }
}

}  // namespace
}  // namespace shoestring
