// Runs of several phases, and phases that end early.
#include <limits>

#include "tests/core/training/held_clocks.h"
#include "tests/core/training/small_runs.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::read_text;
using testing::TickingClock;
using testing::write_text;

/// Two phases, the second with the weights of `source`, a run.
class PhaseFrom : public testing::SmallRuns {
 protected:
  static ExitCode train(const std::string& name, const std::vector<std::string>& overrides,
                        const Clock& clock = system_clock()) {
    if (!fs::exists(run_folder("source"))) SmallRuns::train("source", {"--run.seed=3"});
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
  SmallRuns::train("source", {"--run.seed=3"});
  const fs::path torn = *folder_ / "torn";
  fs::copy(checkpoints("source")[0], torn, fs::copy_options::recursive);
  const std::string bytes = read_text(torn / "model.safetensors");
  write_text(torn / "model.safetensors", bytes.substr(0, bytes.size() / 2));
  const Error error = error_of([&] { train("never", {"--phase.more.from=" + torn.string()}); });
  EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
  EXPECT_NE(std::string(error.what()).find("torn/model.safetensors"), std::string::npos) << error.what();
  EXPECT_FALSE(fs::exists(run_folder("never") / "metrics.jsonl") && !metrics("never").empty());
}

using TrainerPhases = testing::SmallRuns;

// Steps that are far too long: the loss on held-out text soon gets worse, and what is left is what it was best with.
TEST_F(TrainerPhases, APhaseThatPatienceEndsLeavesItsBestWeights) {
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

}  // namespace
}  // namespace shoestring
