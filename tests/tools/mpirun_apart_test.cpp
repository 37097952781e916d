// Ranks that do not find the same under the same path: two folders stand for two hosts with disks of their own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/budget/ledger_history.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::Ended;
using testing::Workplace;

class MpirunApart : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    namespace fs = std::filesystem;
    for (const char* name :
         {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"}) {
      setenv(name, "1", 1);
    }
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
    for (const char* file : {"small.recipe", "hardware"}) {
      fs::create_directories(elsewhere());
      fs::copy(place().path() / file, elsewhere() / file, fs::copy_options::recursive);
    }
    fs::create_directories(elsewhere() / "shards");
    for (const auto& entry : fs::directory_iterator(place().path() / "shards")) {
      if (entry.is_regular_file()) fs::copy(entry.path(), elsewhere() / "shards");  // the tokenizer
    }
    fs::create_directories(elsewhere() / "text");
    std::ofstream(elsewhere() / "text/other.c") << std::string(20000, 'x') << "\n" << std::string(20000, 'y');
    const Ended built =
        place().run("data build elsewhere/text text --out other --tokenizer bytes --hold-out 0.1 --threads 1");
    ASSERT_EQ(built.exit_code, 0) << built.output;
  }
  static const Workplace& place() {
    static const Workplace workplace;
    return workplace;
  }
  static std::filesystem::path elsewhere() { return place().path() / "elsewhere"; }
  /// What rank 1 finds under this path.
  static void lead(const std::string& path, const std::filesystem::path& to) {
    std::filesystem::create_directories((elsewhere() / path).parent_path());
    std::filesystem::remove(elsewhere() / path);
    std::filesystem::create_directory_symlink(place().path() / to, elsewhere() / path);
  }
  static void same_data() {
    lead("shards/train", "shards/train");
    lead("shards/validation", "shards/validation");
  }
  static Ended run_apart(const std::string& arguments, const std::string& second = "") {
    const std::string rank_1 = " : -n 1 --wdir elsewhere " + second + " '" + SHOESTRING_PROGRAM + "' ";
    return place().run(arguments + rank_1 + arguments, "mpirun -n 1");
  }
  /// train, in a run's folder that both see.
  static std::string train_shared(const std::string& name, const std::string& overrides = "") {
    return place().train(name, "--run.directory=" + place().run_folder(name).string() + " " + overrides);
  }
  static void expect_named(const Ended& ended, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(ended.exit_code, code) << ended.output;
    for (const std::string& word : words) {
      EXPECT_NE(ended.output.find(word), std::string::npos) << word << " in: " << ended.output;
    }
    EXPECT_EQ(ended.output.find("loss "), std::string::npos) << "a step was taken: " << ended.output;
  }
};

TEST_F(MpirunApart, OtherDataOnARankAreNamed) {
  lead("shards/train", "other/train");
  lead("shards/validation", "shards/validation");
  expect_named(run_apart(train_shared("data")), 65,
               {"training data of phase pretrain (shards/train): rank 1 of 2 read something else there than rank 0 "
                "(host ",
                "has `source.0 = "});
  lead("shards/train", "shards/train");
  lead("shards/validation", "other/validation");
  expect_named(run_apart(train_shared("data")), 65, {"held-out text (shards/validation): rank 1 of 2 read"});
}

TEST_F(MpirunApart, ARunThatRanksDoNotShareIsRefused) {
  same_data();
  const Ended ended = run_apart(place().train("own"));
  expect_named(ended, 66,
               {"runs/own/ranks: rank 1 of 2, first rank 1 (host ", "does not see there what rank 0 (host "});
  EXPECT_EQ(ended.output.find("left as asked"), std::string::npos) << ended.output;
  EXPECT_EQ(read_ledger(place().run_folder("own")).attempts.at(0).exit_code, 66);
}

TEST_F(MpirunApart, CheckpointsThatRanksDoNotShareAreRefused) {
  same_data();
  for (const auto& folder : {place().path(), elsewhere()}) std::filesystem::create_directories(folder / "disk");
  std::filesystem::create_directories(place().run_folder("disks"));
  std::filesystem::create_symlink("/proc/self/cwd/disk", place().run_folder("disks") / "checkpoints");
  expect_named(run_apart(train_shared("disks")), 66, {"disks/checkpoints: rank 1 of 2", "does not see there"});
}

// Of one shape, and of another training.
TEST_F(MpirunApart, OtherWeightsOnARankAreNamed) {
  namespace fs = std::filesystem;
  same_data();
  ASSERT_EQ(place().run(place().train("giver", "--phase.pretrain.steps=10")).exit_code, 0);
  const fs::path checkpoints = place().run_folder("giver") / "checkpoints";
  fs::create_directory_symlink(checkpoints / "step_00000010", place().path() / "weights");
  lead("weights", "runs/giver/checkpoints/step_00000005");
  expect_named(run_apart(train_shared("taker", "--model.from=weights")), 65,
               {"model.from (weights): rank 1 of 2 read something else there than rank 0 (host "});
  fs::rename(checkpoints / "step_00000010", place().path() / "kept");
  lead("kept", "runs/giver/checkpoints/step_00000005");
  fs::create_symlink("/proc/self/cwd/kept", checkpoints / "step_00000010");
  expect_named(run_apart(train_shared("giver")), 65, {"giver/checkpoints/step_00000010: rank 1 of 2 read"});
}

TEST_F(MpirunApart, LessRoomOnARankIsNamed) {
  same_data();
  expect_named(run_apart(train_shared("room", "--model.layers=4 --parallel.pipeline=2"),
                         "bash -c 'ulimit -f 100; exec \"$@\"' -"),
               74, {"at most on rank 1 (host ", "raise `ulimit -f` there"});
}

// What is refused costs the run nothing, and accuses nobody.
TEST_F(MpirunApart, ATrialAndAComparisonLookAtTheLaunchFirst) {
  const std::string other = std::string(" : -n 1 '") + SHOESTRING_PROGRAM + "' ";
  const std::string plan = "plan small.recipe --run.name=trial --measure 0.2";
  for (const std::string& command : {plan, std::string("verify small.recipe --steps 1 --ranks 2")}) {
    const Ended ended = place().run(command + other + command + " --optimizer.clip=2", "mpirun -n 1");
    EXPECT_EQ(ended.exit_code, 78) << ended.output;
    EXPECT_NE(ended.output.find("optimizer.clip = 2, not 1"), std::string::npos) << ended.output;
  }
  EXPECT_FALSE(std::filesystem::exists(place().run_folder("trial")));
  same_data();
  const Ended apart = run_apart(plan);
  EXPECT_EQ(apart.exit_code, 66) << apart.output;
  EXPECT_EQ(read_ledger(place().run_folder("trial")).attempts.at(0).exit_code, 66);
}

}  // namespace
}  // namespace shoestring
