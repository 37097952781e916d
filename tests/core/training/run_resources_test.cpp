// Phases that train different weights of one model, in whole runs.
#include "core/training/run_resources.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/recipe/parse.h"
#include "core/training/checkpoint.h"
#include "core/training/trainer.h"
#include "kernels/base/check.h"
#include "tests/core/training/held_clocks.h"
#include "tests/core/training/small_corpus.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kRecipe = R"([run]
name = r
threads = 1
tensorboard = false
[budget]
gpu_hours = 10
[kernels]
allow_reference = yes
[precision]
policy = fp32
[parallel]
reduction_groups = 2
[schedule]
kind = constant
horizon = steps
learning_rate = 1e-2
)";
constexpr const char* kDense = R"([model]
architecture = llama
layers = 1
hidden = 32
heads = 1
feed_forward = 32
init_std = 0.02
)";
constexpr const char* kMixture = R"([model]
architecture = deepseek_v2
layers = 2
hidden = 32
heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
feed_forward = 48
experts = 4
experts_per_token = 2
shared_experts = 1
expert_feed_forward = 16
dense_layers = 1
router = softmax
init_std = 0.02
)";

class PhasesWithAdapters : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    testing::build_small_corpus(folder_->path());
    const std::string data = fmt::format("[data]\ntrain = {}\n", (*folder_ / "shards/train").string());
    const auto phase = [](const char* name) {
      return fmt::format("[phase.{}]\nsequence = 16\nmicro_batch = 1\nglobal_batch = 2\nsteps = 5\n", name);
    };
    for (const auto& [name, model] : {std::pair{"dense", kDense}, std::pair{"mixture", kMixture}}) {
      const std::string one = std::string(kRecipe) + model + data + phase("first");
      write_text(*folder_ / (std::string(name) + ".one"), one);
      write_text(*folder_ / (std::string(name) + ".two"), one + phase("second"));
    }
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static ExitCode train(Communicator& world, const std::string& recipe, const std::string& name,
                        const std::vector<std::string>& more = {}, const Clock& clock = system_clock()) {
    static std::FILE* nowhere = std::fopen("/dev/null", "w");
    std::vector<std::string> all = {"--run.directory=" + (*folder_ / "runs" / name).string()};
    all.insert(all.end(), more.begin(), more.end());
    TrainerOptions options;
    options.out = nowhere;
    return Trainer(parse_recipe(*folder_ / recipe, all).recipe, world, clock, options).run();
  }
  static fs::path checkpoint(const std::string& name) {
    return CheckpointStore(*folder_ / "runs" / name / "checkpoints").newest([](const std::string&) {}).value();
  }
  /// Tensors of the model that differ between two runs, the first of which wrote one file.
  static std::vector<std::string> differences(const std::string& a, const std::string& b) {
    const SafetensorsFile all(checkpoint(a) / "model.safetensors");
    const CheckpointReader one(checkpoint(a)), two(checkpoint(b));
    std::vector<std::string> names;
    for (const auto& [tensor, entry] : all.entries()) {
      Tensor ours(DType::f32, entry.shape), theirs(DType::f32, entry.shape);
      one.read_weight(tensor, ours.view());
      two.read_weight(tensor, theirs.view());
      if (std::memcmp(ours.view().data, theirs.view().data, static_cast<std::size_t>(ours.bytes())) != 0) {
        names.push_back(tensor);
      }
    }
    return names;
  }

  static std::unique_ptr<TemporaryFolder> folder_;
};
std::unique_ptr<TemporaryFolder> PhasesWithAdapters::folder_;

// New weights take minutes where the model is large: how many are drawn is told, and whoever is asked leaves there.
TEST_F(PhasesWithAdapters, DrawingNewWeightsIsToldAndCanBeLeft) {
  const std::vector<std::string> directory = {"--run.directory=" + (*folder_ / "runs/drawn").string()};
  const Recipe recipe = parse_recipe(*folder_ / "dense.one", directory).recipe;
  const std::unique_ptr<Communicator> alone = self_communicator();
  const Layout layout = layout_of(recipe, 0, 1);
  Mesh mesh(*alone, layout.shape);
  RunResources resources(recipe, layout, mesh, {});
  std::vector<Progress> told;
  resources.begin_weights(0, true, [&](const Progress& progress) { told.push_back(progress); });
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back().doing, "drawing weights");
  EXPECT_LE(told.back().done_bytes, told.back().all_bytes);  // norms are filled, not drawn
  EXPECT_GT(2 * told.back().done_bytes, told.back().all_bytes);
  const auto leave = [](const Progress&) { fail(ExitCode::preempted, "left; run it again"); };
  EXPECT_THROW(resources.begin_weights(0, true, leave), Error);
}

// All weights of a new model first, then adapters on some of them: these alone move.
TEST_F(PhasesWithAdapters, TheLastPhaseMovesItsTargetsOnly) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "dense.one", "whole"), ExitCode::done);
  ASSERT_EQ(train(*alone, "dense.two", "then adapters",
                  {"--lora.rank=4", "--lora.targets=q_proj, down_proj", "--phase.first.lora=no"}),
            ExitCode::done);
  EXPECT_EQ(
      differences("whole", "then adapters"),
      (std::vector<std::string>{"model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"}));
}

// Adapters of experts and latents, then all weights, beginning with the sum; in one job, in many, on two ranks.
TEST_F(PhasesWithAdapters, TheSumIsWhatTheNextPhaseBeginsWith) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "mixture.one", "source", {"--run.seed=3"}), ExitCode::done);
  const std::vector<std::string> adapted = {"--model.from=" + (*folder_ / "runs/source").string(), "--lora.rank=4"};
  ASSERT_EQ(train(*alone, "mixture.one", "adapters", adapted), ExitCode::done);
  EXPECT_EQ(differences("source", "adapters").size(), 5u * 2 + 3 + 3 * (4 + 1));  // all projections, but the router
  std::vector<std::string> both = adapted;
  both.insert(both.end(), {"--phase.second.lora=no", "--phase.second.learning_rate=1e-30"});
  ASSERT_EQ(train(*alone, "mixture.two", "then all", both), ExitCode::done);
  EXPECT_EQ(differences("adapters", "then all"), std::vector<std::string>());
  both.back() = "--phase.second.learning_rate=1e-2";
  ASSERT_EQ(train(*alone, "mixture.two", "unbroken", both), ExitCode::done);
  EXPECT_GT(differences("adapters", "unbroken").size(), 28u);
  std::vector<std::string> in_jobs = both;
  in_jobs.push_back(fmt::format("--budget.job_hours={}", 0.6 / 3600));
  int jobs = 1;
  while (train(*alone, "mixture.two", "broken", in_jobs, testing::TickingClock()) == ExitCode::preempted)
    ASSERT_LT(++jobs, 14);
  EXPECT_GT(jobs, 1);
  EXPECT_EQ(differences("unbroken", "broken"), std::vector<std::string>());
  testing::run_ranks(
      2, [&](Communicator& world) { train(world, "mixture.two", "two ranks", both); }, 20);
  EXPECT_EQ(differences("unbroken", "two ranks"), std::vector<std::string>());
  both.push_back("--parallel.shard_optimizer=yes");
  testing::run_ranks(
      2, [&](Communicator& world) { train(world, "mixture.two", "shared state", both); }, 20);
  EXPECT_EQ(differences("unbroken", "shared state"), std::vector<std::string>());
}

// Ranks that share the experts share their adapters.
TEST_F(PhasesWithAdapters, SharedExpertsHaveTheBitsOfOneRank) {
  const std::unique_ptr<Communicator> alone = self_communicator();
  ASSERT_EQ(train(*alone, "mixture.one", "other source", {"--run.seed=4"}), ExitCode::done);
  std::vector<std::string> adapted = {"--model.from=" + (*folder_ / "runs/other source").string(), "--lora.rank=4"};
  ASSERT_EQ(train(*alone, "mixture.one", "on one", adapted), ExitCode::done);
  adapted.push_back("--parallel.expert=2");
  testing::run_ranks(
      2, [&](Communicator& world) { train(world, "mixture.one", "on two", adapted); }, 20);
  EXPECT_EQ(differences("on one", "on two"), std::vector<std::string>());
}

}  // namespace
}  // namespace shoestring
