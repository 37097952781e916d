#include "core/training/saved_work.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "core/budget/ledger.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

LedgerHistory history_saved_at(std::int64_t step) {
  LedgerHistory history;
  history.attempts.emplace_back().kept_step = step;
  return history;
}

class SavedWork : public ::testing::Test {
 protected:
  fs::path save(std::int64_t step) {
    Tensor weight(DType::f32, {8, 8});
    for (int i = 0; i < 64; ++i) weight.as<float>()[i] = static_cast<float>(i);
    return store_.save(step, {.weights = {{"w", weight}}, .optimizer = {}, .files = {}, .state_json = "{}"}, 9,
                       [](const std::string& text) { ADD_FAILURE() << text; });
  }
  /// The error of a start over what a ledger that saved `step` knows; done: it may start.
  Error start(std::int64_t step, bool from_older = false) const {
    try {
      check_saved_work(history_saved_at(step), store_, from_older);
    } catch (const Error& error) {
      return error;
    }
    return {ExitCode::done, ""};
  }
  void expect_refused(std::int64_t step, ExitCode code) const {
    const Error error = start(step);
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& words : {"step " + std::to_string(step), std::string("--begin-anew"), root_.string()}) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }

  TemporaryFolder folder_;
  fs::path root_ = folder_ / "run/checkpoints";
  CheckpointStore store_{root_};
};

TEST_F(SavedWork, StartsOverWhatItSees) {
  EXPECT_EQ(start(0).code(), ExitCode::done);
  save(20);
  EXPECT_EQ(start(20).code(), ExitCode::done);
  save(40);  // committed, and killed before the ledger knew
  EXPECT_EQ(start(20).code(), ExitCode::done);
  EXPECT_EQ(start(40).code(), ExitCode::done);
}

// What cannot be read may have been what tells of a checkpoint, and of what was spent.
TEST_F(SavedWork, TracesOfARunThatNothingTellsOfAreNotBegunOver) {
  const auto refusal = [&](const LedgerHistory& history) -> std::string {
    try {
      check_saved_work(history, store_, false);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      return error.what();
    }
    return {};
  };
  LedgerHistory history = history_saved_at(0);
  history.torn = true;  // killed before its first checkpoint
  EXPECT_EQ(refusal(history), "");
  history.damaged_lines = 2;
  EXPECT_NE(refusal(history).find("ledger.jsonl: 2 lines cannot be read"), std::string::npos) << refusal(history);
  EXPECT_NE(refusal(history).find("--begin-anew"), std::string::npos) << refusal(history);
  EXPECT_EQ(refusal({}), "");
  write_text(folder_ / "run/metrics.jsonl", "");
  EXPECT_EQ(refusal({}), "");
  write_text(folder_ / "run/metrics.jsonl", "{}\n");
  EXPECT_NE(refusal({}).find("metrics.jsonl tells of steps"), std::string::npos) << refusal({});
  EXPECT_EQ(refusal(history_saved_at(0)), "");
  save(20);
  EXPECT_EQ(refusal(history), "");  // it goes on from there
}

TEST_F(SavedWork, AFolderThatIsNotThereIsMissing) {
  save(20);
  fs::rename(root_, folder_ / "elsewhere");
  expect_refused(20, ExitCode::missing_input);
  EXPECT_EQ(start(20, true).code(), ExitCode::missing_input);
  fs::create_symlink("not-mounted", root_);
  expect_refused(20, ExitCode::missing_input);
  EXPECT_NE(std::string(start(20).what()).find("not-mounted"), std::string::npos);
  fs::remove(root_);
  write_text(root_, "a plain file");
  expect_refused(20, ExitCode::missing_input);
  fs::remove(root_);
  fs::create_symlink(folder_ / "elsewhere", root_);
  EXPECT_EQ(start(20).code(), ExitCode::done);
}

TEST_F(SavedWork, AStepThatIsNotThereIsNotBegunBefore) {
  const fs::path last = save(40);
  fs::rename(last, folder_ / "kept");
  expect_refused(40, ExitCode::corrupt_checkpoint);
  EXPECT_EQ(start(40, true).code(), ExitCode::corrupt_checkpoint);  // there is no older one
  save(20);
  expect_refused(40, ExitCode::corrupt_checkpoint);
  EXPECT_NE(std::string(start(40).what()).find("only step_00000020"), std::string::npos) << start(40).what();
  EXPECT_EQ(start(40, true).code(), ExitCode::done);
  fs::create_directory_symlink(folder_ / "kept", last);
  EXPECT_EQ(start(40).code(), ExitCode::done);
  fs::remove_all(folder_ / "kept");
  expect_refused(40, ExitCode::corrupt_checkpoint);
  EXPECT_NE(std::string(start(40).what()).find("step_00000040 is a link"), std::string::npos) << start(40).what();
}

// One that is cut short is passed over for the one before; none is left: refused, before anything is written.
TEST_F(SavedWork, DamagedOnesAreRefusedOnlyWhenThereIsNoOther) {
  const fs::path older = save(20);
  fs::resize_file(save(40) / "model.safetensors", 10);
  EXPECT_EQ(start(40).code(), ExitCode::done);
  fs::resize_file(older / "model.safetensors", 10);
  expect_refused(40, ExitCode::corrupt_checkpoint);
}

// Whatever hinders the process is no damage.
TEST_F(SavedWork, WhatTheSystemRefusesIsNotDamaged) {
  save(20);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  const Error error = start(20);
  setrlimit(RLIMIT_NOFILE, &before);
  EXPECT_EQ(error.code(), ExitCode::io);
  EXPECT_EQ(std::string(error.what()).find("damaged"), std::string::npos) << error.what();
}

TEST_F(SavedWork, CheckpointsWithoutALedgerAreRefused) {
  check_saved_work({}, store_, false);
  save(20);
  try {
    check_saved_work({}, store_, false);
    FAIL() << "began its budget anew";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
  }
}

// The last line counts: where a run went on from, or what it saved since.
TEST_F(SavedWork, TheLedgerTellsWhatWasSavedLast) {
  fs::create_directories(folder_ / "run");
  const auto attempt = [&](std::int64_t from, const std::vector<std::int64_t>& steps) {
    Ledger ledger(folder_ / "run", system_clock());
    AttemptStart start;
    start.run = "r";
    start.from_step = from;
    ledger.begin(start);
    for (const std::int64_t step : steps) {
      AttemptProgress progress;
      progress.step = step;
      CheckpointCommit commit;
      commit.step = step;
      ledger.checkpoint(commit, progress);
    }
    return last_saved(read_ledger(folder_ / "run"));
  };
  EXPECT_EQ(last_saved({}).step, 0);
  EXPECT_EQ(attempt(0, {}).step, 0);
  EXPECT_EQ(attempt(0, {10, 20}).step, 20);
  EXPECT_EQ(attempt(-1, {}).step, 20);  // died before it knew where to go on from
  EXPECT_EQ(attempt(10, {}).step, 10);  // 20 was damaged
  EXPECT_EQ(attempt(10, {15}).name, "step_00000015");
}

TEST_F(SavedWork, TheEndNamesWhatIsThere) {
  EXPECT_NE(saved_work_text(store_).find("nothing of this run is saved"), std::string::npos);
  save(20);
  EXPECT_NE(saved_work_text(store_).find("step_00000020"), std::string::npos);
}

TEST_F(SavedWork, AnOldRunIsSetAsideWhole) {
  EXPECT_TRUE(set_aside(folder_ / "run", system_clock()).empty());
  save(20);
  write_text(folder_ / "run/metrics.jsonl", "kept\n");
  fs::create_directories(folder_ / "run.old_1");
  {
    const Ledger running(folder_ / "run", system_clock());
    EXPECT_THROW(set_aside(folder_ / "run", system_clock()), Error);
  }
  const fs::path old = set_aside(folder_ / "run/", system_clock());
  EXPECT_EQ(old.filename(), "run.old_2");
  EXPECT_FALSE(fs::exists(folder_ / "run"));
  EXPECT_EQ(testing::read_text(old / "metrics.jsonl"), "kept\n");
  EXPECT_EQ(CheckpointStore(old / "checkpoints").all().size(), 1u);
}

}  // namespace
}  // namespace shoestring
