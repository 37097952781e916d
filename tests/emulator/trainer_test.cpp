// Whole attempts on the emulated device: a recipe asks for it, and is stopped, killed, evaluated, and moved between the
// device and the processor on the way.
#include "core/training/trainer.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/recipe/parse.h"
#include "core/training/checkpoint.h"
#include "core/training/engine.h"
#include "core/training/run_resources.h"
#include "core/training/signals.h"
#include "core/training/speed_trial.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/training/small_corpus.h"
#include "tests/emulator/grid.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using Words = std::vector<std::string>;

constexpr int kSteps = 5;
constexpr double kBand = 1e-4;  // of losses in FP32: the order of sums
constexpr const char* kRecipe = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[model]
architecture = llama
layers = 1
hidden = 64
heads = 1
feed_forward = 64
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 3e-5
[phase.pretrain]
sequence = 16
micro_batch = 1
global_batch = 2
steps = 5
[evaluation]
tokens = 64
)";

/// Real time; at one reading of it something happens.
class EventfulClock : public Clock {
 public:
  EventfulClock(std::function<bool()> when, std::function<void()> what)
      : when_(std::move(when)), what_(std::move(what)) {}
  double monotonic_seconds() const override {
    if (!over_ && when_()) {
      over_ = true;
      what_();
    }
    return system_clock().monotonic_seconds();
  }
  double unix_seconds() const override { return system_clock().unix_seconds(); }
  double process_start() const override { return system_clock().process_start(); }

 private:
  std::function<bool()> when_;
  std::function<void()> what_;
  mutable bool over_ = false;
};

class EmulatedTrainer : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
    const std::string shards = (*folder_ / "shards/train").string();
    testing::write_text(*folder_ / "r.recipe",
                        fmt::format("{}[data]\ntrain = {}\nvalidation = {}\n", kRecipe, shards, shards));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static fs::path run_folder(const std::string& name) { return *folder_ / "runs" / name; }
  static Recipe recipe(const char* file, const std::string& name, const std::string& device, const Words& more = {}) {
    Words all = {"--run.directory=" + run_folder(name).string(), "--run.device=" + device};
    all.insert(all.end(), more.begin(), more.end());
    return parse_recipe(*folder_ / file, all).recipe;
  }
  static ExitCode train_file(const char* file, const std::string& name, const std::string& device,
                             const Words& more = {}, const Clock& clock = system_clock()) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    TrainerOptions options;
    options.out = nowhere;
    const std::unique_ptr<Communicator> world = self_communicator();
    return Trainer(recipe(file, name, device, more), *world, clock, options).run();
  }
  static ExitCode train(const std::string& name, const std::string& device, const Words& more = {},
                        const Clock& clock = system_clock()) {
    return train_file("r.recipe", name, device, more, clock);
  }
  /// Trains until `steps` steps are in the metrics, and leaves as asked.
  static void train_until(int steps, const std::string& name, const std::string& device) {
    const EventfulClock clock([&] { return steps_written(name) == steps; }, [] { request_stop(true); });
    EXPECT_EQ(train(name, device, {}, clock), ExitCode::preempted);
    request_stop(false);
    EXPECT_EQ(steps_written(name), steps);
  }

  static std::vector<nlohmann::json> lines_of(const std::string& name, const char* has) {
    std::istringstream text(read_text(run_folder(name) / "metrics.jsonl"));
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(text, line);) {
      nlohmann::json read = nlohmann::json::parse(line);
      if (read.contains(has)) lines.push_back(std::move(read));
    }
    return lines;
  }
  static std::ptrdiff_t steps_written(const std::string& name) {
    return fs::exists(run_folder(name) / "metrics.jsonl") ? std::ssize(lines_of(name, "learning_rate")) : 0;
  }
  static std::vector<double> losses(const std::string& name) {
    std::vector<double> all;
    for (const nlohmann::json& line : lines_of(name, "learning_rate")) all.push_back(line["loss"].get<double>());
    return all;
  }
  static std::string weights(const std::string& name) {
    const std::vector<fs::path> checkpoints = CheckpointStore(run_folder(name) / "checkpoints").all();
    return checkpoints.empty() ? "" : hash_file(checkpoints.front() / "model.safetensors");
  }
  static nlohmann::json report(const std::string& name) {
    return nlohmann::json::parse(read_text(run_folder(name) / "report.json"));
  }
  static void expect_near(const std::vector<double>& ours, const std::vector<double>& expected) {
    ASSERT_EQ(ours.size(), expected.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_NEAR(ours[i], expected[i], kBand * std::abs(expected[i])) << "step " << i + 1;
    }
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> EmulatedTrainer::folder_;

TEST_F(EmulatedTrainer, ARecipeTrainsThereWithTheProcessorsLosses) {
  ASSERT_EQ(train("here", "cpu"), ExitCode::done);
  ASSERT_EQ(train("there", "cuda"), ExitCode::done);
  ASSERT_EQ(losses("there").size(), static_cast<std::size_t>(kSteps));
  expect_near(losses("there"), losses("here"));
  EXPECT_NE(weights("there"), weights("here")) << "the device's own sums";
  const double held_out = report("there")["evaluations"].back()["loss"].get<double>();
  EXPECT_NEAR(held_out, report("here")["evaluations"].back()["loss"].get<double>(), kBand * held_out);
  const std::string ledger = read_text(run_folder("there") / "ledger.jsonl");
  EXPECT_NE(ledger.find("device: cuda:0 (emulated, compute capability 9.0); fp32: FP32 products"), std::string::npos);
  EXPECT_NE(read_text(run_folder("here") / "ledger.jsonl").find("device: the processor"), std::string::npos);
}

TEST_F(EmulatedTrainer, LeftAsAskedItGoesOnWithTheSameBits) {
  ASSERT_EQ(train("undisturbed", "cuda"), ExitCode::done);
  train_until(2, "left", "cuda");
  ASSERT_EQ(train("left", "cuda"), ExitCode::done);
  EXPECT_EQ(losses("left"), losses("undisturbed"));
  EXPECT_EQ(weights("left"), weights("undisturbed"));
}

TEST_F(EmulatedTrainer, KilledItGoesOnFromItsLastCheckpoint) {
  const Words often = {"--checkpoint.every_steps=2"};
  ASSERT_EQ(train("whole", "cuda", often), ExitCode::done);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const EventfulClock clock([] { return steps_written("killed") == 3; }, [] { ::kill(::getpid(), SIGKILL); });
    train("killed", "cuda", often, clock);
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  ASSERT_EQ(train("killed", "cuda", often), ExitCode::done);
  EXPECT_EQ(weights("killed"), weights("whole"));
  EXPECT_EQ(report("killed")["attempts"].size(), 2U);
}

// From the processor to the device and back, with the weights and the optimizer's state of a checkpoint.
TEST_F(EmulatedTrainer, ARunMovesBetweenProcessorAndDevice) {
  ASSERT_EQ(train("stays", "cpu"), ExitCode::done);
  train_until(1, "moves", "cpu");
  train_until(3, "moves", "cuda");
  ASSERT_EQ(train("moves", "cpu"), ExitCode::done);
  expect_near(losses("moves"), losses("stays"));
}

TEST_F(EmulatedTrainer, ASpeedTrialTakesItsStepsThere) {
  emulator::clear_history();
  const std::unique_ptr<Communicator> world = self_communicator();
  const Recipe tried = recipe("r.recipe", "tried", "cuda", {"--model.hidden=128", "--model.heads=2"});
  Seat seat(*world, tried, system_clock());
  const Speeds speeds = try_speed(tried, seat, system_clock(), 1e-3).value();
  ASSERT_EQ(speeds.phases.size(), 1U);
  EXPECT_GT(speeds.phases[0].step_seconds, 0);
  EXPECT_GT(speeds.phases[0].evaluation_seconds, 0);
  EXPECT_FALSE(emulator::kernels_seen().empty());
}

TEST_F(EmulatedTrainer, WhatCannotBeHadIsRefusedBeforeAnAttemptIs) {
  for (const Words& asked : {Words{"--precision.policy=mxfp8"}, Words{"--evaluation.suites=questions"}}) {
    try {
      train("refused", "cuda", asked);
      ADD_FAILURE() << asked[0];
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_recipe) << error.what();
    }
  }
  EXPECT_FALSE(fs::exists(run_folder("refused")));
}

// What a run is refused for, it takes. No step is run, since memory is taken before the first.
TEST_F(EmulatedTrainer, ThePlanCoversWhatTheDeviceHolds) {
  const Recipe large =
      recipe("r.recipe", "planned", "cuda",
             {"--model.hidden=512", "--model.heads=8", "--model.feed_forward=1024", "--model.layers=4"});
  const std::unique_ptr<Communicator> world = self_communicator();
  const Layout layout = layout_of(large, 0, 1);
  Mesh mesh(*world, layout.shape);
  Meter meter(system_clock());
  const std::int64_t before = memory_use(DeviceKind::cuda).now_bytes;
  RunResources resources(large, layout, mesh, machine_share(large, *world));
  const Engine engine(large, {resources.model(), resources.optimizer(), resources.stream()}, mesh, 2, meter);
  const std::unique_ptr<MicroBatch> batch = resources.model().make_micro_batch();
  resources.model().initialise(large.run.seed);
  resources.model().prepare();
  const auto taken = static_cast<double>(memory_use(DeviceKind::cuda).now_bytes - before);
  const MemoryPlan plan = resources.memory_plan();
  EXPECT_NEAR(static_cast<double>(plan.total()), taken, 0.01 * taken);
}

// Weights of a folder, adapters on them, their sum in a checkpoint.
TEST_F(EmulatedTrainer, AdaptersOfAFoldersWeightsTrainThere) {
  ASSERT_EQ(train("source", "cpu"), ExitCode::done);
  const Words adapted = {"--model.from=" + run_folder("source").string(), "--lora.rank=4"};
  ASSERT_EQ(train("adapted here", "cpu", adapted), ExitCode::done);
  ASSERT_EQ(train("adapted there", "cuda", adapted), ExitCode::done);
  expect_near(losses("adapted there"), losses("adapted here"));
}

// The model is made anew around its weights, on the device.
TEST_F(EmulatedTrainer, APhaseThatTrainsOtherWeightsGoesOnThere) {
  testing::write_text(*folder_ / "two.recipe",
                      "include = r.recipe\n[lora]\nrank = 4\n[phase.pretrain]\nlora = no\nsteps = 2\n[phase.adapt]\n"
                      "sequence = 16\nmicro_batch = 1\nglobal_batch = 2\nsteps = 2\n");
  ASSERT_EQ(train_file("two.recipe", "two here", "cpu"), ExitCode::done);
  ASSERT_EQ(train_file("two.recipe", "two there", "cuda"), ExitCode::done);
  expect_near(losses("two there"), losses("two here"));
}

// 16 GiB are there. What the recipe asks for is refused before anything is taken, with a change that would do.
TEST_F(EmulatedTrainer, ARunThatDoesNotFitIsTold) {
  try {
    train("large", "cuda", {"--model.hidden=10240", "--model.heads=16", "--model.feed_forward=16384"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io) << error.what();
    for (const char* part : {"of cuda:0 and can have", "emulated has 16 GiB in all", "would need", "and fit"}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
