#include "core/budget/run_estimate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/budget/price.h"
#include "core/recipe/parse.h"

namespace shoestring {
namespace {

const std::filesystem::path kRecipes = std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes";

Hardware hardware(const char* name) { return read_hardware(find_hardware(name, kRecipes)); }

// Published totals add up, and so does their money: DeepSeek-V3 (arXiv 2412.19437, table 1), Sky-T1
// (NovaSky-AI/SkyThought@0d190f1: 8 H100, 19 h, under $450), R1 (Nature 645, supplementary: $2 an hour), Llama 3.1
// 405B.
TEST(GoldenCosts, AddUpAsPublished) {
  const Price two_dollars{.usd_per_gpu_hour = 2, .source = "DeepSeek", .date = "2024-12-27"};
  EXPECT_EQ(2664e3 + 119e3 + 5e3, 2788e3);
  EXPECT_DOUBLE_EQ(two_dollars.usd(2788e3), 5.576e6);
  EXPECT_DOUBLE_EQ(two_dollars.usd(2664e3), 5.328e6);
  EXPECT_NEAR(two_dollars.usd(512 * 198 + 5e3 + 512 * 80), 294e3, 1e3);
  const Price three_dollars{.usd_per_gpu_hour = 3, .source = "Lambda", .date = "2025-01-10"};
  EXPECT_EQ(8 * 19, 152);
  EXPECT_NEAR(three_dollars.usd(152), 450, 10);
}

TEST(Goodput, FallsWithDevicesAndWithRareCheckpoints) {
  const Goodput one = goodput_of({.devices = 1, .checkpoint_interval_seconds = 1800});
  EXPECT_GT(one.share, 0.999);
  // 16,384 devices: 7.8 failures a day, each 15 min of steps and 10 of restart; Llama reports over 90% effective time.
  const Goodput many = goodput_of({.devices = 16384, .checkpoint_interval_seconds = 1800});
  EXPECT_NEAR(many.failures_a_day, 419.0 / 54, 1e-9);
  EXPECT_GT(many.share, 0.86);
  EXPECT_LT(many.share, 0.90);
  EXPECT_LT(goodput_of({.devices = 16384}).share, many.share);
  const Goodput slow = goodput_of({.devices = 1, .checkpoint_seconds = 180, .checkpoint_interval_seconds = 1800});
  EXPECT_NEAR(slow.share + slow.checkpoints + slow.lost, 1, 1e-12);
  EXPECT_NEAR(slow.checkpoints, 1.0 / 11, 1e-3);
}

/// What a run was published to cost, and what is foretold for it.
struct PublishedRun {
  const char* name;
  const char* hardware;
  int devices;
  ModelSpec model;
  PrecisionPolicy policy;
  std::int64_t sequence, global_batch;
  double tokens, gpu_hours;
};

ModelSpec dense(std::int64_t layers, std::int64_t hidden, std::int64_t heads, std::int64_t kv_heads,
                std::int64_t feed_forward, std::int64_t vocabulary) {
  ModelSpec spec;
  spec.layers = layers;
  spec.hidden = hidden;
  spec.heads = heads;
  spec.kv_heads = kv_heads;
  spec.feed_forward = feed_forward;
  spec.vocabulary = vocabulary;
  return spec;
}

RunEstimate foretell(const PublishedRun& run) {
  Recipe recipe;
  recipe.precision.policy = run.policy;
  recipe.schedule.horizon = Horizon::tokens;
  recipe.phases = {{.name = "pretrain",
                    .sequence = run.sequence,
                    .micro_batch = 1,
                    .global_batch = run.global_batch,
                    .tokens = static_cast<std::int64_t>(run.tokens)}};
  return estimate_run(recipe, resolve_model(run.model, 0, run.sequence), hardware(run.hardware), run.devices, {},
                      INFINITY);
}

// Hours from cost.md's sources: the models' cards and reports. Batches as published; device counts where they are.
TEST(RunEstimate, PublishedRunsLieInsideTheInterval) {
  constexpr auto bf16 = PrecisionPolicy::bf16;
  const PublishedRun runs[] = {
      {"LLaMA 7B", "a100_80", 1024, dense(32, 4096, 32, 32, 11008, 32000), bf16, 2048, 2048, 1e12, 82432},
      {"LLaMA 13B", "a100_80", 1024, dense(40, 5120, 40, 40, 13824, 32000), bf16, 2048, 2048, 1e12, 135168},
      {"LLaMA 33B", "a100_80", 2048, dense(60, 6656, 52, 52, 17920, 32000), bf16, 2048, 2048, 1.4e12, 530432},
      {"LLaMA 65B", "a100_80", 2048, dense(80, 8192, 64, 64, 22016, 32000), bf16, 2048, 2048, 1.4e12, 1022362},
      {"Llama 2 7B", "a100_80", 1024, dense(32, 4096, 32, 32, 11008, 32000), bf16, 4096, 1024, 2e12, 184320},
      {"Llama 2 13B", "a100_80", 1024, dense(40, 5120, 40, 40, 13824, 32000), bf16, 4096, 1024, 2e12, 368640},
      {"Llama 2 70B", "a100_80", 1024, dense(80, 8192, 64, 8, 28672, 32000), bf16, 4096, 1024, 2e12, 1720320},
      {"DeepSeek 67B", "h800", 1024, dense(95, 8192, 64, 8, 22016, 102400), bf16, 4096, 4608, 2e12, 601200},
      {"Llama 3.1 405B", "h100", 16384, dense(126, 16384, 128, 8, 53248, 128256), bf16, 8192, 2048, 15.6e12, 30.84e6},
  };
  int inside = 0;
  for (const PublishedRun& run : runs) {
    const RunEstimate estimate = foretell(run);
    ASSERT_TRUE(estimate.refusal.empty()) << run.name << ": " << estimate.refusal;
    const bool held = run.gpu_hours >= estimate.low_gpu_hours() && run.gpu_hours <= estimate.high_gpu_hours();
    inside += held ? 1 : 0;
    std::printf("%-16s published %9.0f foretold %9.0f (%9.0f to %9.0f) %s %s\n", run.name, run.gpu_hours,
                estimate.gpu_hours(), estimate.low_gpu_hours(), estimate.high_gpu_hours(), held ? "inside" : "OUTSIDE",
                to_string(estimate.phases.front().layout.layout).c_str());
  }
  EXPECT_GE(inside, 8);
}

// As published: 16 stages, 64-way experts, no tensor parallelism (arXiv 2412.19437, section 3.2), 2,664K hours.
TEST(RunEstimate, DeepSeekV3AsItWasTrained) {
  const Recipe recipe = parse_recipe(kRecipes / "deepseek_v3.recipe", {}).recipe;
  const ModelConfig config = resolve_model(recipe.model, 0, 131072);
  const PlanLayout layout =
      parse_layout("pipeline=16 expert=64 schedule=dualpipev recompute=selective", {.devices = 2048});
  const auto ranked = rank_layouts(recipe, config, recipe.phases.front(), hardware("h800"), 2048, layout);
  ASSERT_TRUE(ranked.front().step) << ranked.front().reason;
  const double seconds = ranked.front().step->seconds.total();
  const double hours = 14.8e12 / ranked.front().step->tokens * seconds * 2048 / 3600;
  EXPECT_NEAR(hours / 2664e3, 1, 0.15);
}

TEST(RunEstimate, RefusesWhatDoesNotFit) {
  const PublishedRun run{"70B on 8", "a100_40", 8, dense(80, 8192, 64, 8, 28672, 32000), PrecisionPolicy::bf16, 4096,
                         8,          1e9,       1};
  const RunEstimate estimate = foretell(run);
  EXPECT_TRUE(estimate.phases.empty());
  EXPECT_NE(estimate.refusal.find("phase pretrain has no layout on 8 a100_40; nearest:"), std::string::npos)
      << estimate.refusal;
  EXPECT_NE(estimate.refusal.find("GiB of 37.3"), std::string::npos) << estimate.refusal;
}

}  // namespace
}  // namespace shoestring
