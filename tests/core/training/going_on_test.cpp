// What an attempt that goes on tells of that is otherwise than before: in whole attempts, and by itself.
#include "core/training/going_on.h"

#include "tests/core/training/small_runs.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;

TEST(OtherRows, AreThoseThatOneOpHadBefore) {
  LedgerHistory history;
  history.attempts.resize(2);
  history.attempts[0].start.variants = {{"gemm", "amx"}, {"rope", "simd"}};
  history.attempts[1].start.variants = {{"gemm", "avx512"}};
  EXPECT_EQ(other_rows_text(history, {{"gemm", "avx512"}, {"rope", "simd"}, {"fill", "cpu"}}), "");
  EXPECT_EQ(other_rows_text({}, {{"gemm", "avx512"}}), "");
  const std::string text = other_rows_text(history, {{"gemm", "avx2"}, {"rope", "simd"}});
  for (const char* part : {"gemm is avx2 and was avx512", "kernels.pin"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text.find("rope"), std::string::npos) << text;
}

class GoingOn : public testing::SmallRuns {
 protected:
  /// A run that was stopped behind its first steps, at its checkpoint.
  static void begin(const std::string& name) {
    ASSERT_EQ(train(name, {"--phase.pretrain.steps=4"}), ExitCode::done);
    ASSERT_EQ(checkpoints(name).size(), 1u);
  }
  static TrainerOptions allowing() {
    TrainerOptions options;
    options.allow_recipe_change = true;
    return options;
  }
  static std::string ledger(const std::string& name) { return read_text(run_folder(name) / "ledger.jsonl"); }
};

TEST_F(GoingOn, AnAllowedChangeOfTheRecipeIsNoted) {
  begin("changed");
  ASSERT_EQ(train("changed", {"--phase.pretrain.steps=6"}, allowing()), ExitCode::done);
  EXPECT_NE(ledger("changed").find("phase.pretrain.steps is '6' and was '4'"), std::string::npos) << ledger("changed");
}

// A checkpoint that is whole is not called damaged: who removed it, as damage asks for, would lose it.
TEST_F(GoingOn, ARecipeThatNoCheckpointFitsIsTheRecipesFault) {
  begin("shape");
  for (const char* change : {"--model.layers=2", "--optimizer.name=muon"}) {
    const Error error = error_of([&] { train("shape", {"--phase.pretrain.steps=4", change}, allowing()); });
    EXPECT_EQ(error.code(), ExitCode::bad_recipe) << error.what();
    const std::string text = error.what();
    EXPECT_NE(text.find("put the recipe back"), std::string::npos) << text;
    EXPECT_EQ(text.find("restore"), std::string::npos) << text;
    EXPECT_EQ(text.find("remove"), std::string::npos) << text;
  }
}

TEST_F(GoingOn, ACheckpointUnderAnotherStepsNameIsRefused) {
  begin("renamed");
  const fs::path folder = run_folder("renamed") / "checkpoints";
  fs::rename(folder / "step_00000004", folder / "step_00000009");
  const Error error = error_of([&] { train("renamed", {"--phase.pretrain.steps=12"}, allowing()); });
  EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint) << error.what();
  EXPECT_NE(std::string(error.what()).find("step 4"), std::string::npos) << error.what();
  EXPECT_EQ(metrics("renamed").back()["step"], 4);
}

TEST_F(GoingOn, AnOldLedgerAndMetricsThatAreGoneAreTold) {
  begin("old");
  const std::string old = ledger("old");
  ASSERT_EQ(train("old", {"--phase.pretrain.steps=8"}, allowing()), ExitCode::done);
  testing::write_text(run_folder("old") / "ledger.jsonl", old);
  fs::remove(run_folder("old") / "metrics.jsonl");
  ASSERT_EQ(train("old", {"--phase.pretrain.steps=10"}, allowing()), ExitCode::done);
  for (const char* part :
       {"\"about\":\"bill\"", "newest checkpoint is of step 8", "lacks the lines of 8 of the 8 steps"}) {
    EXPECT_NE(ledger("old").find(part), std::string::npos) << part << "\n" << ledger("old");
  }
}

}  // namespace
}  // namespace shoestring
