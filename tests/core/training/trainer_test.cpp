// Whole attempts in this process, on a model of one layer, with a clock that the test holds in its hands.
#include "core/training/trainer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/budget/ledger_history.h"
#include "core/recipe/parse.h"
#include "core/training/checkpoint.h"
#include "core/training/signals.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "tests/core/training/small_corpus.h"
#include "tests/data/held_storage.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kRecipe = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[model]
architecture = llama
layers = 1
hidden = 32
heads = 1
feed_forward = 32
init_std = 0.02
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-3
[phase.pretrain]
sequence = 16
micro_batch = 1
global_batch = 2
steps = 12
)";

/// Real time, to which each reading may add; at one reading of it something happens.
class EventfulClock : public Clock {
 public:
  EventfulClock(std::function<bool()> when, std::function<void()> what, double seconds_per_reading = 0)
      : when_(std::move(when)), what_(std::move(what)), seconds_per_reading_(seconds_per_reading) {}
  double monotonic_seconds() const override {
    if (!over_ && when_()) {
      over_ = true;
      what_();
    }
    added_ += seconds_per_reading_;
    return system_clock().monotonic_seconds() + added_;
  }
  double unix_seconds() const override { return system_clock().unix_seconds(); }
  double process_start() const override { return system_clock().process_start(); }

 private:
  std::function<bool()> when_;
  std::function<void()> what_;
  double seconds_per_reading_;
  mutable double added_ = 0;
  mutable bool over_ = false;
};

/// Every reading takes a while: time without waiting, the same in every run.
class TickingClock : public Clock {
 public:
  double monotonic_seconds() const override { return seconds_ += 0.001; }
  double unix_seconds() const override { return seconds_; }
  double process_start() const override { return 0; }

 private:
  mutable double seconds_ = 0;
};

/// A rank's end of a world, in which the first sum or maximum fails once `due` says so.
class FailingCommunicator final : public Communicator {
 public:
  struct Fault {
    std::function<bool()> due;
    bool met = false;
  };
  FailingCommunicator(Communicator& inner, Fault& fault)
      : Communicator(inner.rank(), inner.size(), inner.name()), inner_(inner), fault_(fault) {}
  void abort(ExitCode code, const std::string& why) override { inner_.abort(code, why); }

 protected:
  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) override {
    std::unique_ptr<Communicator> child = inner().split(color, key, name.substr(name.rfind('/') + 1));
    if (child == nullptr) return nullptr;
    auto made = std::make_unique<FailingCommunicator>(*child, fault_);
    made->own_ = std::move(child);
    return made;
  }
  void do_all_reduce(TensorView values, Reduction reduction) override {
    if (!fault_.met && fault_.due()) {
      fault_.met = true;
      fail(ExitCode::bad_data, "shards/train: block 7 is damaged");
    }
    inner().all_reduce(values, reduction);
  }
  void do_reduce_scatter(TensorView received, ConstTensorView sent, Reduction reduction) override {
    inner().reduce_scatter(received, sent, reduction);
  }
  void do_all_gather(TensorView received, ConstTensorView sent) override { inner().all_gather(received, sent); }
  void do_all_to_all_v(TensorView received, std::span<const std::int64_t> receive_counts, ConstTensorView sent,
                       std::span<const std::int64_t> send_counts) override {
    inner().all_to_all_v(received, receive_counts, sent, send_counts);
  }
  void do_broadcast(TensorView values, int root) override { inner().broadcast(values, root); }
  void do_barrier() override { inner().barrier(); }
  Pending do_post(Operation, std::vector<Transfer> transfers) override {
    inner().group_begin();
    for (const Transfer& t : transfers) {
      const Shape shape = {t.bytes / size_bytes(t.dtype)};
      t.sends ? inner().send(view_of(t.source, t.dtype, shape), t.peer)
              : inner().recv(view_of(t.target, t.dtype, shape), t.peer);
    }
    return inner().group_post();
  }
  std::string refuses(Device) const override { return {}; }

 private:
  /// Waits where this one would, and hears what this one would.
  Communicator& inner() {
    inner_.tell(signs());
    return inner_;
  }

  std::unique_ptr<Communicator> own_;
  Communicator& inner_;
  Fault& fault_;
};

class TrainerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
    write_text(*folder_ / "r.recipe",
               fmt::format("{}[data]\ntrain = {}\n", kRecipe, (*folder_ / "shards/train").string()));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static fs::path run_folder(const std::string& name) { return *folder_ / "runs" / name; }

  static Recipe recipe(const std::string& name, const std::vector<std::string>& overrides) {
    std::vector<std::string> all = {"--run.directory=" + run_folder(name).string()};
    all.insert(all.end(), overrides.begin(), overrides.end());
    return parse_recipe(*folder_ / "r.recipe", all).recipe;
  }

  static ExitCode train(const std::string& name, const std::vector<std::string>& overrides = {},
                        const TrainerOptions& options = {}, const Clock& clock = system_clock()) {
    const std::unique_ptr<Communicator> world = self_communicator();
    return train_on(*world, name, overrides, options, clock);
  }
  static ExitCode train_on(Communicator& world, const std::string& name, const std::vector<std::string>& overrides,
                           TrainerOptions options = {}, const Clock& clock = system_clock()) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    options.out = nowhere;
    return Trainer(recipe(name, overrides), world, clock, options).run();
  }

  static TrainerOptions beginning_anew() {
    TrainerOptions options;
    options.begin_anew = true;
    return options;
  }

  static Error error_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "no error was thrown";
    return {ExitCode::done, ""};
  }

  static std::vector<nlohmann::json> metrics(const std::string& name) {
    std::istringstream text(read_text(run_folder(name) / "metrics.jsonl"));
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(text, line);) {
      lines.push_back(nlohmann::json::parse(line));
      lines.back().erase("timing");
    }
    return lines;
  }
  /// Whole lines so far: for who looks while they are written.
  static std::ptrdiff_t steps_written(const std::string& name) {
    const fs::path file = run_folder(name) / "metrics.jsonl";
    const std::string text = fs::exists(file) ? read_text(file) : "";
    return std::count(text.begin(), text.end(), '\n');
  }
  static std::vector<fs::path> checkpoints(const std::string& name) {
    return CheckpointStore(run_folder(name) / "checkpoints").all();
  }
  /// Of each file of weights: stages of a pipeline write one each.
  static std::vector<std::string> weights(const fs::path& checkpoint) {
    std::vector<fs::path> files = list_directory(checkpoint);
    std::sort(files.begin(), files.end());
    std::vector<std::string> hashes;
    for (const fs::path& file : files) {
      if (file.extension() == ".safetensors") hashes.push_back(hash_file(file));
    }
    EXPECT_FALSE(hashes.empty());
    return hashes;
  }

  /// Of the storage, for the shards of a phase.
  static int calls_to_open() {
    const testing::HeldStorage storage;
    for (const std::string& shard : list_shards((*folder_ / "shards/train").string())) {
      Shard::open(shard, {ShardIo::pread, true, &storage, {}});
    }
    return storage.opens + storage.reads;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> TrainerTest::folder_;

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

TrainerOptions on(const ShardStorage& storage) {
  TrainerOptions options;
  options.storage = &storage;
  return options;
}

const std::vector<std::string> kByReads = {"--data.io=pread"};

// For five minutes of its own time; then what was trained is saved, the code says "run me again", and the run goes on
// to the bits of one that nothing disturbed.
TEST_F(TrainerTest, AStorageThatFailsIsWaitedForThenTheRunIsSaved) {
  ASSERT_EQ(train("on a good disk", kByReads), ExitCode::done);
  testing::HeldStorage storage;
  storage.good = calls_to_open() + 9;
  storage.bad = 1 << 30;
  const Error error = error_of([&] { train("on a bad disk", kByReads, on(storage)); });
  EXPECT_EQ(error.code(), ExitCode::preempted) << error.what();
  EXPECT_NEAR(storage.seconds(), Phase::kStoragePatienceSeconds, 1e-3);
  ASSERT_EQ(checkpoints("on a bad disk").size(), 1u) << error.what();
  const nlohmann::json report = nlohmann::json::parse(read_text(run_folder("on a bad disk") / "report.json"));
  EXPECT_EQ(report["run"]["state"], "preempted");
  EXPECT_GT(report["data"]["storage"]["bytes"], 0);
  storage.good = calls_to_open() + 2;
  storage.bad = 6;  // a short failure is no more than a wait
  ASSERT_EQ(train("on a bad disk", kByReads, on(storage)), ExitCode::done);
  EXPECT_NE(read_text(run_folder("on a bad disk") / "ledger.jsonl").find("waiting for the storage"), std::string::npos);
  EXPECT_EQ(weights(checkpoints("on a bad disk")[0]), weights(checkpoints("on a good disk")[0]));
}

TEST_F(TrainerTest, ASignalIsObeyedWhileTheStorageIsWaitedFor) {
  testing::HeldStorage storage;
  storage.good = calls_to_open() + 9;
  storage.bad = 1 << 30;
  storage.on_pause = [] { request_stop(true); };
  ExitCode code = ExitCode::done;
  try {  // it may be seen between two steps as well, while batches are ready
    code = train("left waiting", kByReads, on(storage));
  } catch (const Error& error) {
    code = error.code();
  }
  request_stop(false);
  EXPECT_EQ(code, ExitCode::preempted);
  EXPECT_LE(storage.pauses, 2);
  EXPECT_EQ(checkpoints("left waiting").size(), 1u);
}

/// Fails where the shards of a phase are opened, the first one's or the second one's.
class UnopenedStorage : public testing::HeldStorage {
 public:
  UnopenedStorage(int good_opens, int failures) : good_opens_(good_opens), failures_(failures) {}
  int open(const std::string& path) const override {
    if (opens < good_opens_ || failures_-- <= 0) return HeldStorage::open(path);
    errno = ESTALE;
    return -1;
  }

 private:
  int good_opens_;
  mutable std::atomic<int> failures_;
};

TEST_F(TrainerTest, AStorageThatFailsAtTheStartOfAPhaseIsWaitedForThenTheRunIsSaved) {
  write_text(*folder_ / "phases.recipe",
             "include = r.recipe\n[phase.more]\nsequence = 16\nglobal_batch = 2\nsteps = 8\n");
  const auto go = [](const std::string& name, const ShardStorage& storage) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    TrainerOptions options = on(storage);
    options.out = nowhere;
    const std::unique_ptr<Communicator> world = self_communicator();
    const std::vector<std::string> overrides = {"--run.directory=" + run_folder(name).string(), kByReads[0]};
    const Recipe recipe = parse_recipe(*folder_ / "phases.recipe", overrides).recipe;
    return Trainer(recipe, *world, system_clock(), options).run();
  };
  ASSERT_EQ(go("two phases", system_storage()), ExitCode::done);
  for (const int good_opens : {0, 1}) {
    const std::string name = fmt::format("unopened {}", good_opens);
    const UnopenedStorage away(good_opens, 1 << 30);
    EXPECT_EQ(error_of([&] { go(name, away); }).code(), ExitCode::preempted);
    EXPECT_NEAR(away.seconds(), Phase::kStoragePatienceSeconds, 1e-3);
    ASSERT_EQ(checkpoints(name).size(), static_cast<std::size_t>(good_opens)) << "before a step nothing is to be saved";
    const UnopenedStorage back(0, 4);
    ASSERT_EQ(go(name, back), ExitCode::done);
    EXPECT_NEAR(back.seconds(), 0.1 + 0.2 + 0.4 + 0.8, 1e-6);
    EXPECT_NE(read_text(run_folder(name) / "ledger.jsonl").find("waiting for the storage"), std::string::npos);
    EXPECT_EQ(weights(checkpoints(name)[0]), weights(checkpoints("two phases")[0]));
    EXPECT_EQ(metrics(name), metrics("two phases"));
  }
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

/// Two phases, the second with the weights of `source`, a run.
class PhaseFrom : public TrainerTest {
 protected:
  static ExitCode train(const std::string& name, const std::vector<std::string>& overrides,
                        const Clock& clock = system_clock()) {
    if (!fs::exists(run_folder("source"))) TrainerTest::train("source", {"--run.seed=3"});
    write_text(*folder_ / "two.recipe",
               fmt::format("include = r.recipe\n[phase.more]\nfrom = {}\nsequence = 16\nglobal_batch = 2\nsteps = 8\n",
                           run_folder("source").string()));
    std::vector<std::string> all = {"--run.directory=" + run_folder(name).string(), "--schedule.warmup_steps=4"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    const std::unique_ptr<Communicator> world = self_communicator();
    TrainerOptions options;
    options.out = nowhere;
    return Trainer(parse_recipe(*folder_ / "two.recipe", all).recipe, *world, clock, options).run();
  }
};

TEST_F(PhaseFrom, BeginsWithTheWeightsThereAndItsOwnWarmUp) {
  ASSERT_EQ(train("still", {"--phase.more.learning_rate=1e-30"}), ExitCode::done);
  EXPECT_EQ(hash_file(checkpoints("still")[0] / "model.safetensors"),
            hash_file(checkpoints("source")[0] / "model.safetensors"));
  EXPECT_TRUE(fs::exists(run_folder("still") / "source.more/config.json"));
  ASSERT_EQ(train("moved", {}), ExitCode::done);
  EXPECT_NE(hash_file(checkpoints("moved")[0] / "model.safetensors"),
            hash_file(checkpoints("source")[0] / "model.safetensors"));
  const auto lines = metrics("moved");
  ASSERT_EQ(lines.size(), 20u);
  EXPECT_EQ(lines[11]["learning_rate"], 1e-3);
  EXPECT_EQ(lines[12]["learning_rate"], 1e-3 / 4);
  EXPECT_EQ(lines[16]["learning_rate"], 1e-3);
  EXPECT_NE(read_text(run_folder("moved") / "ledger.jsonl").find("phase.more.from"), std::string::npos);
}

// However it is interrupted, on either side of the change: the bits of an undisturbed run.
TEST_F(PhaseFrom, GoesOnFromItsCheckpoints) {
  ASSERT_EQ(train("at once", {}), ExitCode::done);
  int jobs = 1;
  while (train("in jobs", {fmt::format("--budget.job_hours={}", 0.6 / 3600)}, TickingClock()) == ExitCode::preempted) {
    ASSERT_LT(++jobs, 20);
  }
  EXPECT_GT(jobs, 2);
  EXPECT_EQ(weights(checkpoints("in jobs")[0]), weights(checkpoints("at once")[0]));
  EXPECT_EQ(metrics("in jobs"), metrics("at once"));
}

// A folder that will not do for a later phase is known before the first step is paid.
TEST_F(PhaseFrom, RefusesWhatDoesNotFitBeforeTheFirstStep) {
  TrainerTest::train("source", {"--run.seed=3"});
  const fs::path torn = *folder_ / "torn";
  fs::copy(checkpoints("source")[0], torn, fs::copy_options::recursive);
  const std::string bytes = read_text(torn / "model.safetensors");
  write_text(torn / "model.safetensors", bytes.substr(0, bytes.size() / 2));
  const Error error = error_of([&] { train("never", {"--phase.more.from=" + torn.string()}); });
  EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
  EXPECT_NE(std::string(error.what()).find("torn/model.safetensors"), std::string::npos) << error.what();
  EXPECT_FALSE(fs::exists(run_folder("never") / "metrics.jsonl") && !metrics("never").empty());
}

// Steps that are far too long: the loss on held-out text soon gets worse, and what is left is what it was best with.
TEST_F(TrainerTest, APhaseThatPatienceEndsLeavesItsBestWeights) {
  const std::vector<std::string> overrides = {"--data.validation=" + (*folder_ / "shards/train").string(),
                                              "--evaluation.every_steps=2", "--phase.pretrain.patience=2",
                                              "--phase.pretrain.steps=60", "--schedule.learning_rate=0.3"};
  ASSERT_EQ(train("impatient", overrides), ExitCode::done);
  double best = std::numeric_limits<double>::infinity(), last = 0;
  std::int64_t best_step = 0, last_step = 0;
  for (const nlohmann::json& line : metrics("impatient")) {
    if (!line.contains("evaluation")) continue;
    last = line["evaluation"]["loss"];
    last_step = line["step"];
    if (last < best) best_step = last_step;
    best = std::min(best, last);
  }
  ASSERT_LT(last_step, 60) << "patience did not end";
  ASSERT_LT(best_step, last_step);
  EXPECT_EQ(last, best);
  const std::vector<fs::path> kept = checkpoints("impatient");
  ASSERT_GE(kept.size(), 2u);
  EXPECT_EQ(step_of(kept.front()), last_step);
  EXPECT_EQ(step_of(kept.back()), best_step);
  EXPECT_EQ(weights(kept.front()), weights(kept.back()));
}

/// Adapters on the weights of a run.
class Lora : public TrainerTest {
 protected:
  static std::vector<std::string> recipe_of_adapters(const std::vector<std::string>& more = {}) {
    if (!fs::exists(run_folder("source"))) TrainerTest::train("source", {"--run.seed=3"});
    std::vector<std::string> all = {"--model.from=" + run_folder("source").string(), "--lora.rank=4", "--lora.alpha=8",
                                    "--lora.targets=q_proj, down_proj"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  /// Tensors of the model whose bytes are not those of the source.
  static std::vector<std::string> changed(const std::string& name) {
    const CheckpointReader now(checkpoints(name)[0]);
    const SafetensorsFile before(checkpoints("source")[0] / "model.safetensors");
    std::vector<std::string> names;
    for (const auto& [tensor, entry] : before.entries()) {
      Tensor theirs(DType::f32, entry.shape);
      Tensor ours(DType::f32, entry.shape);
      before.read(tensor, theirs.view());
      now.read_weight(tensor, ours.view());
      if (std::memcmp(theirs.view().data, ours.view().data, static_cast<std::size_t>(entry.bytes)) != 0) {
        names.push_back(tensor);
      }
    }
    return names;
  }
};

// A checkpoint is a model that others read: what the adapters amount to is in it, and nothing else has moved.
TEST_F(Lora, CheckpointsHoldTheSum) {
  ASSERT_EQ(train("adapted", recipe_of_adapters()), ExitCode::done);
  EXPECT_EQ(changed("adapted"), (std::vector<std::string>{"model.layers.0.mlp.down_proj.weight",
                                                          "model.layers.0.self_attn.q_proj.weight"}));
  ASSERT_EQ(train("on it", {"--model.from=" + run_folder("adapted").string(), "--schedule.learning_rate=1e-30"}),
            ExitCode::done);
  EXPECT_EQ(hash_file(checkpoints("on it")[0] / "model.safetensors"),
            hash_file(checkpoints("adapted")[0] / "model.safetensors"));
}

// The sum alone would not do: weights and factors come back as they were, to the bit. Muon's factors are dealt out
// whole where ranks share the state.
TEST_F(Lora, GoesOnToTheSameBitsOnAnyRanks) {
  for (const std::string optimizer : {"adamw", "muon"}) {
    const std::string unbroken = optimizer + " unbroken", broken = optimizer + " broken", two = optimizer + " of two";
    const std::string by = "--optimizer.name=" + optimizer;
    ASSERT_EQ(train(unbroken, recipe_of_adapters({by})), ExitCode::done);
    int jobs = 1;
    const std::vector<std::string> in_jobs = recipe_of_adapters({by, fmt::format("--budget.job_hours={}", 0.6 / 3600)});
    while (train(broken, in_jobs, {}, TickingClock()) == ExitCode::preempted) ASSERT_LT(++jobs, 12);
    EXPECT_GT(jobs, 1);
    EXPECT_EQ(weights(checkpoints(broken)[0]), weights(checkpoints(unbroken)[0]));
    EXPECT_EQ(metrics(broken), metrics(unbroken));
    const std::vector<std::string> shared = recipe_of_adapters({by, "--parallel.shard_optimizer=yes"});
    testing::run_ranks(
        2, [&](Communicator& world) { train_on(world, two, shared); }, 20);
    EXPECT_EQ(weights(checkpoints(two)[0]), weights(checkpoints(unbroken)[0]));
  }
  EXPECT_NE(weights(checkpoints("muon unbroken")[0]), weights(checkpoints("adamw unbroken")[0]));
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
