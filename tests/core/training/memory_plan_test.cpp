#include "core/training/memory_plan.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model/accounting.h"
#include "core/optimizer/optimizer.h"
#include "core/recipe/names.h"
#include "core/training/engine.h"
#include "tests/core/model/published_models.h"
#include "tests/core/model/small_models.h"
#include "tests/core/training/made_feed.h"
#include "tests/support/ranks.h"

namespace shoestring::testing {
namespace {

/// One micro-batch a step.
Recipe moved_by(OptimizerName optimizer) {
  Recipe recipe;
  recipe.optimizer.name = optimizer;
  PhaseSpec phase;
  phase.micro_batch = phase.global_batch = 1;
  recipe.phases = {phase};
  return recipe;
}

/// What a model, its optimizer and its micro-batches came to hold in a step.
std::int64_t held_in_a_step(SmallRun& run, OptimizerName name, std::int64_t before) {
  OptimizerSpec spec;
  spec.name = name;
  const std::unique_ptr<Optimizer> optimizer =
      make_optimizer(spec, run.model.precision().moments, run.model.parameters(), run.stream.worker_count());
  run.step();
  optimizer->step({.learning_rate = 1e-3, .gradient_scale = 1, .number = 1}, run.stream);
  run.model.prepare_trained();
  std::vector<std::unique_ptr<MicroBatch>> batches;
  for (int i = 0; i < 2; ++i) batches.push_back(run.micro_batch(run.batch.view(), i));
  return memory_use(DeviceKind::cpu).now_bytes - before;
}

// A plan is what the code asks for, to the byte. In FP8 it is a bound: which scales stand apart from packed weights,
// and how many tiles the experts' rows begin, only numbers tell.
TEST(MemoryPlan, IsWhatAStepHolds) {
  LoraSpec adapters;
  adapters.rank = 4;
  for (const Architecture architecture :
       {Architecture::llama, Architecture::qwen2, Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
      for (const OptimizerName optimizer : {OptimizerName::adamw, OptimizerName::muon}) {
        for (const bool adapted : {false, true}) {
          const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
          SmallRun run(tiled_config(architecture), policy(format), 1, 2, 128, 2, nullptr, {},
                       adapted ? adapters : LoraSpec{});
          const std::int64_t held = held_in_a_step(run, optimizer, before);
          MemoryPlan plan = plan_memory(run.model, moved_by(optimizer), {});
          plan.merged = 0;  // while a checkpoint is written
          const std::string what =
              fmt::format("{} {} {}{}", name(architecture), word(format), word(optimizer), adapted ? " adapted" : "");
          if (format != PrecisionPolicy::fp8_block) {
            EXPECT_EQ(held, plan.total()) << what;
          } else {
            EXPECT_LE(held, plan.total()) << what;
            EXPECT_GE(static_cast<double>(held), 0.97 * static_cast<double>(plan.total())) << what;
          }
          EXPECT_LE(run.model.scratch_peak_bytes(), plan.model.scratch) << what;
        }
      }
    }
  }
}

TEST(MemoryPlan, HasTheOptimizersMoments) {
  TransformerOptions options;
  options.model = llama_3_8b();
  options.precision = policy(PrecisionPolicy::bf16);
  options.run = {4096, 1, 1};
  const std::int64_t total = count_parameters(options.model).total;
  const auto moments_of = [&](OptimizerName optimizer, const Layout& layout) {
    Recipe recipe = moved_by(optimizer);
    recipe.precision = options.precision;
    recipe.parallel.shard_optimizer = layout.shape.data > 1;
    recipe.phases[0].global_batch = layout.shape.data;
    return plan_memory(Transformer(options), recipe, layout).moments;
  };
  EXPECT_EQ(moments_of(OptimizerName::adamw, {}), 8 * total);
  options.precision.moments = MomentFormat::bf16;
  EXPECT_EQ(moments_of(OptimizerName::adamw, {}), 4 * total);
  EXPECT_LT(moments_of(OptimizerName::muon, {}), 3 * total);
  // Shared by four, each has its share, give or take a piece. What is even is the weights: under Muon, a rank with the
  // embedding or the head has two moments of it instead of one.
  const std::int64_t table = options.model.vocabulary * options.model.hidden;
  for (const OptimizerName optimizer : {OptimizerName::adamw, OptimizerName::muon}) {
    const std::int64_t alone = moments_of(optimizer, {});
    const MeshShape shape{.data = 4};
    std::int64_t sum = 0;
    for (int rank = 0; rank < 4; ++rank) {
      Layout layout;
      layout.shape = shape;
      layout.at = coordinates_of(shape, rank);
      const std::int64_t own = moments_of(optimizer, layout);
      const std::int64_t second = optimizer == OptimizerName::muon ? table : 0;
      EXPECT_LE(own, alone / 4 + alone / 50 + second);  // the largest matrix is less than that
      sum += own;
    }
    EXPECT_EQ(sum, alone);
  }
}

/// A rank of `recipe`, which trains `config`: a step, and what the plan said of it.
class PlannedRank {
 public:
  PlannedRank(Communicator& world, const Recipe& recipe, const ModelConfig& config)
      : recipe_(recipe),
        layout_(layout_of(recipe, world.rank(), world.size())),
        mesh_(world, layout_.shape),
        stream_(workers_),
        model_(part_of({.model = config,
                        .precision = recipe.precision,
                        .run = {phase().micro_batch * phase().sequence, phase().micro_batch, 1},
                        .own_stages = {}},
                       layout_, nullptr)),
        plan_(plan_memory(model_, recipe, layout_)) {
    model_.allocate(stream_);
    model_.initialise(1);
    model_.prepare();
    optimizer_ = optimizer_of(recipe, model_, mesh_, 1);
    const int groups = reduction_groups(recipe, layout_, 0);
    engine_.emplace(recipe_, EngineParts{model_, *optimizer_, stream_}, mesh_, groups, meter_, layout_.schedule);
    MadeFeed feed(config.vocabulary, phase().sequence, clock_);
    const BatchPlan batches(phase(), groups, layout_.shape.data);
    engine_->step({.plan = batches, .feed = feed, .learning_rate = 1e-3});
  }
  const MemoryPlan& plan() const { return plan_; }

 private:
  const PhaseSpec& phase() const { return recipe_.phases.front(); }

  const Recipe& recipe_;
  Layout layout_;
  Mesh mesh_;
  Workers workers_{1};
  Stream stream_;
  Transformer model_;
  MemoryPlan plan_;
  HeldClock clock_;
  Meter meter_{clock_};
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<Engine> engine_;
};

// All ranks of a run together, and what they send to each other: sums of gradients over rounds, pieces of them on their
// way, what passes between stages.
TEST(MemoryPlan, HasWhatRanksSendToEachOther) {
  constexpr int kRanks = 4;
  Recipe recipe = moved_by(OptimizerName::adamw);
  recipe.precision = policy(PrecisionPolicy::fp32);
  const ModelConfig config = tiled_config(Architecture::llama);
  recipe.model.layers = config.layers;
  recipe.phases[0].sequence = 128;
  recipe.phases[0].global_batch = 24;
  for (const int pipeline : {1, 2}) {
    for (const int groups : {4, 8}) {
      for (const bool shared : {false, true}) {
        recipe.parallel.pipeline = pipeline;
        recipe.parallel.reduction_groups = groups;
        recipe.parallel.shard_optimizer = shared;
        const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
        run_ranks(kRanks, [&](Communicator& world) {
          const PlannedRank rank(world, recipe, config);
          EXPECT_GT(rank.plan().communication, rank.plan().total() / 50);
          std::int64_t planned = rank.plan().total();
          world.all_reduce(view_of(&planned, DType::i64, {1}));
          if (world.rank() == 0) {
            const auto held = static_cast<double>(memory_use(DeviceKind::cpu).now_bytes - before);
            EXPECT_NEAR(held, static_cast<double>(planned), 0.005 * held)
                << pipeline << " stages, " << groups << " groups" << (shared ? ", shared state" : "");
          }
          world.barrier();
        });
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
