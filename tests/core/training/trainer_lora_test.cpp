// Runs that train adapters.
#include <cstring>

#include "core/training/model_files.h"
#include "tests/core/training/held_clocks.h"
#include "tests/core/training/small_runs.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TickingClock;

/// Adapters on the weights of a run.
class Lora : public testing::SmallRuns {
 protected:
  static std::vector<std::string> recipe_of_adapters(const std::vector<std::string>& more = {}) {
    if (!fs::exists(run_folder("source"))) SmallRuns::train("source", {"--run.seed=3"});
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

}  // namespace
}  // namespace shoestring
