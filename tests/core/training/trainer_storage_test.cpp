// Runs whose shards lie on a storage that fails.
#include <atomic>
#include <cerrno>

#include "core/training/signals.h"
#include "data/shard_report.h"
#include "tests/core/training/small_runs.h"
#include "tests/data/held_storage.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::write_text;

class TrainerStorage : public testing::SmallRuns {
 protected:
  /// Of the storage, for the shards of a phase.
  static int calls_to_open() {
    const testing::HeldStorage storage;
    for (const std::string& shard : list_shards((*folder_ / "shards/train").string())) {
      Shard::open(shard, {ShardIo::pread, true, &storage, {}});
    }
    return storage.opens + storage.reads;
  }
};

TrainerOptions on(const ShardStorage& storage) {
  TrainerOptions options;
  options.storage = &storage;
  return options;
}

const std::vector<std::string> kByReads = {"--data.io=pread"};

// For five minutes of its own time; then what was trained is saved, the code says "run me again", and the run goes on
// to the bits of one that nothing disturbed.
TEST_F(TrainerStorage, AStorageThatFailsIsWaitedForThenTheRunIsSaved) {
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

// Not only when their phase begins, hours later: the same start says so before its first step.
TEST_F(TrainerStorage, AStartThatGoesOnLooksForTheDataOfPhasesToCome) {
  const fs::path later = *folder_ / "later";
  fs::copy(*folder_ / "shards/train", later, fs::copy_options::recursive);
  write_text(*folder_ / "later.recipe",
             fmt::format("include = r.recipe\n[phase.more]\ntrain = {}\nsequence = 16\nglobal_batch = 2\nsteps = 8\n",
                         later.string()));
  const auto go = [](const ShardStorage& storage) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    TrainerOptions options = on(storage);
    options.out = nowhere;
    const std::unique_ptr<Communicator> world = self_communicator();
    const std::vector<std::string> overrides = {"--run.directory=" + run_folder("later").string(), kByReads[0]};
    return Trainer(parse_recipe(*folder_ / "later.recipe", overrides).recipe, *world, system_clock(), options).run();
  };
  testing::HeldStorage storage;
  storage.good = calls_to_open() + 9;
  storage.bad = 1 << 30;
  EXPECT_EQ(error_of([&] { go(storage); }).code(), ExitCode::preempted);
  const auto done = metrics("later");
  fs::rename(later, *folder_ / "moved");
  const Error error = error_of([&] { go(system_storage()); });
  EXPECT_EQ(error.code(), ExitCode::missing_input) << error.what();
  EXPECT_NE(std::string(error.what()).find(later.string()), std::string::npos) << error.what();
  EXPECT_EQ(metrics("later"), done);
  fs::rename(*folder_ / "moved", later);
  EXPECT_EQ(go(system_storage()), ExitCode::done);
}

TEST_F(TrainerStorage, ASignalIsObeyedWhileTheStorageIsWaitedFor) {
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

TEST_F(TrainerStorage, AStorageThatFailsAtTheStartOfAPhaseIsWaitedForThenTheRunIsSaved) {
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

/// Passes with a storage's own time too.
class StorageClock : public Clock {
 public:
  explicit StorageClock(const testing::HeldStorage& storage) : storage_(storage) {}
  double monotonic_seconds() const override { return system_clock().monotonic_seconds() + storage_.seconds(); }
  double unix_seconds() const override { return system_clock().unix_seconds() + storage_.seconds(); }
  double process_start() const override { return start_; }

 private:
  const testing::HeldStorage& storage_;
  double start_ = system_clock().monotonic_seconds();
};

// Five minutes would pass a cap of two: the wait is charged as everything is.
TEST_F(TrainerStorage, AStorageIsNotWaitedForBeyondTheCap) {
  write_text(
      *folder_ / "capped.recipe",
      "include = r.recipe\n[budget]\ngpu_hours = 120s\n[phase.more]\nsequence = 16\nglobal_batch = 2\nsteps = 8\n");
  static std::FILE* nowhere = std::fopen("/dev/null", "w");
  const UnopenedStorage away(1, 1 << 30);
  const StorageClock clock(away);
  TrainerOptions options = on(away);
  options.out = nowhere;
  const std::unique_ptr<Communicator> world = self_communicator();
  const std::vector<std::string> overrides = {"--run.directory=" + run_folder("capped").string(), kByReads[0]};
  const Recipe recipe = parse_recipe(*folder_ / "capped.recipe", overrides).recipe;
  const Error error = error_of([&] { Trainer(recipe, *world, clock, options).run(); });
  EXPECT_EQ(error.code(), ExitCode::preempted) << error.what();
  EXPECT_NE(std::string(error.what()).find("the budget leaves no time"), std::string::npos) << error.what();
  EXPECT_GT(away.seconds(), 30);
  const nlohmann::json report = nlohmann::json::parse(read_text(run_folder("capped") / "report.json"));
  EXPECT_LT(report["budget"]["spent_gpu_hours"], report["budget"]["cap_gpu_hours"]);
  EXPECT_EQ(checkpoints("capped").size(), 1u);
}

}  // namespace
}  // namespace shoestring
