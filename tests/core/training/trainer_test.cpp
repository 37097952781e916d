// Whole attempts in this process, on a model of one layer, with a clock that the test holds in its hands.
#include "core/training/trainer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <map>

#include "core/budget/ledger_history.h"
#include "core/training/signals.h"
#include "tests/core/training/held_clocks.h"
#include "tests/core/training/small_runs.h"
#include "tests/support/failing_communicator.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::EventfulClock;
using testing::FailingCommunicator;
using testing::read_text;
using testing::TickingClock;

using TrainerTest = testing::SmallRuns;

// Weights that are finite themselves, and no step over them is.
const std::vector<std::string> kHopeless = {"--model.init_std=1e15", "--guard.skip_limit=3"};

TEST_F(TrainerTest, StepsThatAreNotFiniteEndTheRunSavedAndNamed) {
  const Error error = error_of([] { train("hopeless", kHopeless); });
  EXPECT_EQ(error.code(), ExitCode::non_finite) << error.what();
  ASSERT_EQ(checkpoints("hopeless").size(), 1u) << error.what();
  EXPECT_EQ(checkpoints("hopeless")[0].filename(), "step_00000003");
  EXPECT_NE(std::string(error.what()).find("step_00000003"), std::string::npos) << error.what();
  const nlohmann::json report = nlohmann::json::parse(read_text(run_folder("hopeless") / "report.json"));
  EXPECT_EQ(report["skipped_steps"], 3);
  EXPECT_EQ(report["run"]["state"], "failed");
  EXPECT_NE(report["run"]["text"].get<std::string>().find("step_00000003"), std::string::npos);
}

// Too few steps for guard.skip_limit, or only the last update breaks the weights: neither run is done, and a further
// start does not say so either.
TEST_F(TrainerTest, ARunThatEndsWithoutAFiniteLossIsNotDone) {
  const std::string held_out = "--data.validation=" + (*folder_ / "shards/train").string();
  const std::map<std::string, std::vector<std::string>> runs = {
      {"no_step", {"--model.init_std=1e15", "--phase.pretrain.steps=1"}},
      {"no_gradient", {"--model.init_std=1e30", "--phase.pretrain.steps=1", held_out}},  // their loss is finite
      {"no_gradients", {"--model.init_std=1e30", "--phase.pretrain.steps=2", held_out}},
      {"few_steps", {"--model.init_std=1e15", "--phase.pretrain.steps=2", held_out}},
      {"last_update",
       {"--schedule.learning_rate=100", "--optimizer.weight_decay=0", "--optimizer.clip=0", "--phase.pretrain.steps=1",
        held_out}}};
  for (const auto& [name, overrides] : runs) {
    for (int start = 0; start < 2; ++start) {
      const Error error = error_of([&] { train(name, overrides); });
      EXPECT_EQ(error.code(), ExitCode::non_finite) << name << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find("the run is at its end"), std::string::npos) << error.what();
    }
    EXPECT_EQ(checkpoints(name).size(), 1u) << name;
    const nlohmann::json report = nlohmann::json::parse(read_text(run_folder(name) / "report.json"));
    EXPECT_EQ(report["run"]["state"], "failed") << name;
    EXPECT_EQ(report["train_loss"].is_null(), name == "no_step" || name == "few_steps") << name;
  }
}

// The last sound weights are named, and are there.
TEST_F(TrainerTest, AnEndWithoutAFiniteLossNamesWhatIsSound) {
  ASSERT_EQ(train("sound", {"--phase.pretrain.steps=4"}), ExitCode::done);
  TrainerOptions changed;
  changed.allow_recipe_change = true;
  const Error error = error_of([&] {
    train("sound",
          {"--schedule.learning_rate=100", "--optimizer.weight_decay=0", "--optimizer.clip=0",
           "--phase.pretrain.steps=7", "--checkpoint.keep=1"},
          changed);
  });
  EXPECT_EQ(error.code(), ExitCode::non_finite) << error.what();
  EXPECT_NE(std::string(error.what()).find("step_00000004 is the last that a step was taken from"), std::string::npos)
      << error.what();
  EXPECT_EQ(checkpoints("sound").size(), 2u);
}

// The same command is what the last line advises. Each start saves weights that the last update broke.
TEST_F(TrainerTest, TheLastWeightsThatTrainedOutliveStartsWithoutAFiniteStep) {
  ASSERT_EQ(train("broken", {"--phase.pretrain.steps=4"}), ExitCode::done);
  TrainerOptions changed;
  changed.allow_recipe_change = true;
  for (int start = 0; start < 3; ++start) {
    const Error error = error_of([&] {
      train("broken",
            {"--schedule.learning_rate=100", "--optimizer.weight_decay=0", "--optimizer.clip=0", "--guard.skip_limit=3",
             "--phase.pretrain.steps=60"},
            changed);
    });
    ASSERT_EQ(error.code(), ExitCode::non_finite) << error.what();
    EXPECT_EQ(checkpoints("broken").back().filename(), "step_00000004") << start;
    EXPECT_NE(std::string(error.what()).find("step_00000004 is the last that a step was taken from"), std::string::npos)
        << error.what();
  }
}

TEST_F(TrainerTest, EveryRankJudgesTheSame) {
  EXPECT_EQ(error_of([] { train("alone", kHopeless); }).code(), ExitCode::non_finite);
  ASSERT_EQ(checkpoints("alone").size(), 1u);
  const Error error = error_of([] {
    testing::run_ranks(
        2, [](Communicator& world) { train_on(world, "ranks", kHopeless); }, 20);
  });
  EXPECT_EQ(error.code(), ExitCode::non_finite) << error.what();
  ASSERT_EQ(checkpoints("ranks").size(), 1u);
  EXPECT_EQ(weights(checkpoints("ranks")[0]), weights(checkpoints("alone")[0]));
}

// Rank 0 alone knows the cap; the others are told, and all leave with the same code instead of waiting for it.
TEST_F(TrainerTest, EveryRankHearsThatJobsAreTooShort) {
  std::array<ExitCode, 2> codes{};
  testing::run_ranks(
      2,
      [&](Communicator& world) {
        codes[static_cast<std::size_t>(world.rank())] =
            error_of([&] { train_on(world, "short", {"--budget.job_hours=1e-6"}); }).code();
      },
      20);
  EXPECT_EQ(codes[0], ExitCode::no_progress);
  EXPECT_EQ(codes[1], ExitCode::no_progress);
  EXPECT_TRUE(checkpoints("short").empty());
}

// The disk takes no more metrics in the middle of a run: what was trained is saved, and the run goes on from there to
// the same bits.
TEST_F(TrainerTest, AnErrorSavesWhatIsWhole) {
  ASSERT_EQ(train("undisturbed"), ExitCode::done);
  const fs::path file = run_folder("disturbed") / "metrics.jsonl";
  const EventfulClock clock([&] { return steps_written("disturbed") == 5; },
                            [&] {
                              for (const fs::path& open : list_directory("/proc/self/fd")) {
                                std::error_code gone;
                                if (fs::read_symlink(open, gone) != file) continue;
                                const int full = ::open("/dev/full", O_WRONLY);
                                ::dup2(full, std::stoi(open.filename()));
                                ::close(full);
                              }
                            });
  const Error error = error_of([&] { train("disturbed", {}, {}, clock); });
  EXPECT_EQ(error.code(), ExitCode::io) << error.what();
  ASSERT_EQ(checkpoints("disturbed").size(), 1u) << error.what();
  EXPECT_EQ(checkpoints("disturbed")[0].filename(), "step_00000006");
  EXPECT_NE(std::string(error.what()).find("step_00000006"), std::string::npos) << error.what();
  ASSERT_EQ(train("disturbed"), ExitCode::done);
  EXPECT_EQ(weights(checkpoints("disturbed")[0]), weights(checkpoints("undisturbed")[0]));
}

// Rank 1 alone meets it, in the middle of a step. Rank 0 hears of it, what both had is saved, by rank 0 alone or by
// both stages of a pipeline, and the cause is the error of all.
TEST_F(TrainerTest, AnErrorOfAnotherRankSavesWhatIsWhole) {
  for (const std::string pipeline : {"1", "2"}) {
    const std::vector<std::string> overrides = {"--model.layers=2", "--parallel.pipeline=" + pipeline};
    const std::string whole = "whole_" + pipeline;
    const std::string broken = "broken_" + pipeline;
    testing::run_ranks(
        2, [&](Communicator& world) { train_on(world, whole, overrides); }, 20);
    std::array<std::string, 2> texts;
    testing::run_ranks(
        2,
        [&](Communicator& world) {
          FailingCommunicator::Fault fault{[&] { return world.rank() == 1 && steps_written(broken) == 5; }};
          FailingCommunicator failing(world, fault);
          const Error error = error_of([&] { train_on(failing, broken, overrides); });
          EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
          texts[static_cast<std::size_t>(world.rank())] = error.what();
        },
        20);
    for (const char* words : {"rank 1 (host ", "block 7 is damaged", "step_00000005"}) {
      EXPECT_NE(texts[0].find(words), std::string::npos) << words << " in: " << texts[0];
    }
    ASSERT_EQ(checkpoints(broken).size(), 1u) << texts[0];
    EXPECT_EQ(checkpoints(broken)[0].filename(), "step_00000005");
    testing::run_ranks(
        2, [&](Communicator& world) { train_on(world, broken, overrides); }, 20);
    EXPECT_EQ(weights(checkpoints(broken)[0]), weights(checkpoints(whole)[0]));
  }
}

// Each of the messages around a save fails in turn, on the rank that keeps the account: it is an error of that rank's,
// told to the other, and not taken for a verdict that both came to.
TEST_F(TrainerTest, AnErrorWhileRanksAgreeToSaveIsTold) {
  for (int message = 1; message <= 4; ++message) {
    const std::string broken = fmt::format("broken_at_{}", message);
    int seen = 0;
    testing::run_ranks(
        2,
        [&](Communicator& world) {
          FailingCommunicator::Fault fault{
              [&] { return world.rank() == 0 && steps_written(broken) == 5 && ++seen == message; }};
          FailingCommunicator failing(world, fault);
          const Error error = error_of([&] {
            train_on(failing, broken, {"--model.layers=2", "--checkpoint.every_steps=5"});
          });
          EXPECT_EQ(error.code(), ExitCode::bad_data) << message << ": " << error.what();
        },
        20);
  }
}

// With hardly any deviation allowed half the steps stand out: the run comes to its end all the same, and the counts of
// metrics, report and checkpoint agree.
const std::vector<std::string> kNervous = {"--guard.spike_sigmas=0.01", "--guard.window=4",
                                           "--checkpoint.every_steps=2", "--checkpoint.keep=100",
                                           "--phase.pretrain.steps=40"};

TEST_F(TrainerTest, CountsWhatIsClippedAndSkipped) {
  ASSERT_EQ(train("nervous", kNervous), ExitCode::done);
  const auto lines = metrics("nervous");
  ASSERT_EQ(lines.size(), 40u);
  int clipped = 0;
  int skipped = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    clipped += lines[i].contains("clipped_to");
    skipped += lines[i].contains("skipped");
    EXPECT_FALSE(i > 0 && lines[i].contains("skipped") && lines[i - 1].contains("skipped"));
    EXPECT_EQ(lines[i]["clipped_steps"], clipped);
    EXPECT_EQ(lines[i]["skipped_steps"], skipped);
  }
  EXPECT_GT(clipped, 0);
  EXPECT_GT(skipped, 0);
  const nlohmann::json report = nlohmann::json::parse(read_text(run_folder("nervous") / "report.json"));
  EXPECT_EQ(report["clipped_steps"], clipped);
  EXPECT_EQ(report["skipped_steps"], skipped);
}

// Back at a checkpoint: its weights, the data after the present step, saved at once under the present step.
TEST_F(TrainerTest, GoesBackToItsLastCheckpoint) {
  std::vector<std::string> overrides = kNervous;
  overrides.emplace_back("--guard.on_repeat=go_back");
  overrides.emplace_back("--schedule.learning_rate=1e-6");  // no trend: every other loss is above the mean
  ASSERT_EQ(train("returning", overrides), ExitCode::done);
  const auto lines = metrics("returning");
  ASSERT_EQ(lines.size(), 40u);
  int returns = 0;
  for (const nlohmann::json& line : lines) {
    if (!line.contains("went_back")) continue;
    ++returns;
    const auto step = line["step"].get<std::int64_t>();
    const auto saved = checkpoints("returning");
    for (std::size_t i = 0; i + 1 < saved.size(); ++i) {
      if (step_of(saved[i]) != step) continue;
      EXPECT_EQ(weights(saved[i]), weights(saved[i + 1])) << "step " << step;
    }
  }
  EXPECT_GT(returns, 0);
  EXPECT_EQ(nlohmann::json::parse(read_text(run_folder("returning") / "report.json"))["returns_to_checkpoints"],
            returns);
}

// By a clock that ticks when it is read, a budget horizon is a function like any other: all of the cap is used and no
// more, the schedule comes to its end, and a second run repeats the first.
TEST_F(TrainerTest, ABudgetIsUsedUpAndKept) {
  constexpr double kCapSeconds = 10;
  const std::vector<std::string> overrides = {"--schedule.horizon=budget", "--schedule.kind=warmup_stable_decay",
                                              "--schedule.final_fraction=0.1",
                                              fmt::format("--budget.gpu_hours={}", kCapSeconds / 3600)};
  for (const char* name : {"budget", "again"}) ASSERT_EQ(train(name, overrides, {}, TickingClock()), ExitCode::done);
  const LedgerHistory history = read_ledger(run_folder("budget"));
  EXPECT_EQ(history.attempts.back().reason, "budget");
  EXPECT_LE(history.charged_gpu_seconds(), kCapSeconds * 1.005);
  EXPECT_GE(history.charged_gpu_seconds(), kCapSeconds * 0.9);
  const auto lines = metrics("budget");
  EXPECT_LT(lines.back()["learning_rate"].get<double>(), 0.2 * lines.front()["learning_rate"].get<double>());
  EXPECT_EQ(lines, metrics("again"));
  EXPECT_EQ(weights(checkpoints("again")[0]), weights(checkpoints("budget")[0]));
}

// A job's hours end it between two steps; the next jobs go on to the weights of a run that was never interrupted.
TEST_F(TrainerTest, JobsGoOnFromOneAnother) {
  ASSERT_EQ(train("one job"), ExitCode::done);
  int jobs = 1;
  while (train("jobs", {fmt::format("--budget.job_hours={}", 0.6 / 3600)}, {}, TickingClock()) == ExitCode::preempted) {
    ASSERT_LT(++jobs, 12);
  }
  EXPECT_GT(jobs, 1);
  EXPECT_EQ(weights(checkpoints("jobs")[0]), weights(checkpoints("one job")[0]));
  EXPECT_EQ(metrics("jobs"), metrics("one job"));
}

// Refused, and nothing touched; begun anew, with the old run kept whole.
TEST_F(TrainerTest, BeginsAnewOnlyWhenTold) {
  ASSERT_EQ(train("lost"), ExitCode::done);
  const fs::path run = run_folder("lost");
  fs::rename(run / "checkpoints", run / "elsewhere");
  const auto content = [&] {
    std::map<std::string, std::string> files;
    for (const fs::path& file : list_directory(run)) {
      if (fs::is_regular_file(file)) files[file.filename()] = read_text(file);
    }
    return files;
  };
  const auto before = content();
  const Error error = error_of([] { train("lost"); });
  EXPECT_EQ(error.code(), ExitCode::missing_input);
  EXPECT_NE(std::string(error.what()).find("step 12"), std::string::npos) << error.what();
  EXPECT_EQ(content(), before);
  ASSERT_EQ(train("lost", {}, beginning_anew()), ExitCode::done);
  EXPECT_TRUE(fs::exists(run / "checkpoints/step_00000012"));
  EXPECT_EQ(read_text(run_folder("lost.old_1") / "metrics.jsonl"), before.at("metrics.jsonl"));
}

// Asked in the middle of a step of eight micro-batches: that step is given up at the next one and its time is lost,
// what was trained before it is saved, and the run goes on to the bits of one that nobody asked.
void leaves_in_the_middle_of_a_step(int ranks, const std::function<ExitCode(Communicator&, const Clock&)>& train,
                                    const std::function<std::ptrdiff_t()>& steps) {
  testing::run_ranks(
      ranks,
      [&](Communicator& world) {
        int readings = 0;  // of the clock since the fifth step: three for each micro-batch, at the least
        const EventfulClock clock([&] { return world.rank() + 1 == ranks && steps() == 5 && ++readings == 12; },
                                  [] { request_stop(true); }, 2);  // every micro-batch is a long one
        EXPECT_EQ(train(world, clock), ExitCode::preempted);
      },
      20);
  request_stop(false);
}

const std::vector<std::string> kEight = {"--phase.pretrain.global_batch=16", "--phase.pretrain.steps=8",
                                         "--checkpoint.every_minutes=0"};

TEST_F(TrainerTest, ASignalIsObeyedInTheMiddleOfAStep) {
  ASSERT_EQ(train("unasked", kEight), ExitCode::done);
  for (const int ranks : {1, 2}) {
    const std::string name = fmt::format("asked_{}", ranks);
    leaves_in_the_middle_of_a_step(
        ranks, [&](Communicator& world, const Clock& clock) { return train_on(world, name, kEight, {}, clock); },
        [&] { return steps_written(name); });
    ASSERT_EQ(checkpoints(name).size(), 1u);
    EXPECT_EQ(checkpoints(name)[0].filename(), "step_00000005");
    const nlohmann::json report = nlohmann::json::parse(read_text(run_folder(name) / "report.json"));
    EXPECT_GT(report["categories"]["lost"].get<double>(), 0);
    ASSERT_EQ(train(name, kEight), ExitCode::done);
    EXPECT_EQ(weights(checkpoints(name)[0]), weights(checkpoints("unasked")[0]));
  }
}

}  // namespace
}  // namespace shoestring
