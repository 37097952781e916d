#include "core/model/accounting.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/recipe/names.h"
#include "tests/core/model/published_models.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

// Totals of the published checkpoints, as their index files and model cards give them.
TEST(Accounting, PublishedTotals) {
  EXPECT_EQ(count_parameters(llama_3_8b()).total, 8'030'261'248);
  EXPECT_EQ(count_parameters(qwen2_5_7b()).total, 7'615'616'512);
  EXPECT_EQ(count_parameters(qwen3_8b()).total, 8'190'735'360);
  EXPECT_EQ(count_parameters(qwen3_30b_a3b()).total, 30'532'122'624);
  EXPECT_NEAR(static_cast<double>(count_parameters(qwen3_30b_a3b()).active), 3.0e9, 0.1e9);
}

TEST(Accounting, DeepSeekV3) {
  const ModelConfig config = deepseek_v3();
  const ParameterCounts counts = count_parameters(config);
  EXPECT_EQ(counts.total, 671'026'419'200);
  EXPECT_NEAR(static_cast<double>(counts.active), 36.6e9, 0.05e9);
  EXPECT_NEAR(static_cast<double>(counts.further), 11.6e9, 0.05e9);
  const FlopCounts flops = count_flops(config, policy(PrecisionPolicy::fp8_block), 4096);
  EXPECT_NEAR(flops.training(false) / 1e9, 250.4, 0.0501);  // 250.45
  EXPECT_NEAR(flops.training(true) / 1e9, 260.6, 0.0501);   // 260.64
}

// The list of products against the declared layers: 6 FLOPs per active weight, and attention.
TEST(Accounting, ProductsAreTheLayersOwn) {
  for (const Architecture architecture :
       {Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::qwen3_moe,
        Architecture::deepseek_v2, Architecture::deepseek_v3}) {
    const ModelConfig config = small_config(architecture);
    TransformerOptions options;
    options.model = config;
    options.precision = policy(PrecisionPolicy::bf16);
    options.run = {1, 1, 1};
    const Transformer model(options);
    std::int64_t weights = 0;
    for (const Parameter* parameter : model.parameters()) {
      const bool lookup = parameter->slices.front().name == "model.embed_tokens.weight" && !config.tie_embeddings;
      if (parameter->role == ParameterRole::vector || parameter->role == ParameterRole::statistic || lookup) continue;
      weights += parameter->of_experts() ? parameter->elements() / config.experts * config.experts_per_token
                                         : parameter->elements();
    }
    weights += config.mtp_layers * config.hidden * config.vocabulary;  // the head a second time
    const std::int64_t layers = config.layers + config.mtp_layers;
    const std::int64_t attention = 3 * 64 * layers * config.heads * (config.qk_dim + config.v_dim);
    EXPECT_DOUBLE_EQ(count_flops(config, options.precision, 64).training(),
                     static_cast<double>(6 * weights + attention))
        << name(architecture);
  }
}

TEST(Accounting, FlopsFollowTheFormats) {
  const ModelConfig config = deepseek_v3();
  PrecisionSpec spec = policy(PrecisionPolicy::fp8_block);
  const FormatFlops low = count_flops(config, spec, 4096).training_by_format();
  EXPECT_GT(low.fp8 / low.total(), 0.8);
  EXPECT_GT(low.f32, 0);  // routers
  EXPECT_EQ(low.f64, 0);
  spec.weight_gradient = LinearFormat::bf16;
  const FormatFlops mixed = count_flops(config, spec, 4096).training_by_format();
  EXPECT_NEAR(mixed.fp8 / low.fp8, 2.0 / 3.0, 1e-9);
  EXPECT_DOUBLE_EQ(mixed.total(), low.total());
  const FormatFlops plain = count_flops(config, policy(PrecisionPolicy::fp32), 4096).training_by_format();
  EXPECT_DOUBLE_EQ(plain.f32, low.total());
}

// Bytes: the plan is what the layers say, and what the process holds is the plan. A step takes the saved bytes exactly;
// with experts in FP8 it may take less, since how many tiles of rows they begin depends on the routing. Scratch is the
// sum of what different calls need most: an upper bound, whose unused pages are never touched.
TEST(Accounting, PlannedBytesAreUsed) {
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    for (const PrecisionPolicy format : {PrecisionPolicy::fp32, PrecisionPolicy::bf16, PrecisionPolicy::fp8_block}) {
      for (const bool cache_fp8 : {true, false}) {
        PrecisionSpec spec = policy(format);
        spec.cache_fp8 = cache_fp8;
        const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
        SmallRun run(tiled_config(architecture), spec, 1, 2, 256);  // more than the fixed workspace of a product
        run.step();
        const ModelMemory plan = run.model.memory();
        const std::int64_t saved = 2 * run.model.saved_peak_bytes();  // two micro-batches in flight, one used
        if (architecture == Architecture::llama || format != PrecisionPolicy::fp8_block) {
          EXPECT_EQ(saved, plan.saved) << name(architecture);
        }
        EXPECT_LE(saved, plan.saved) << name(architecture);
        EXPECT_GE(static_cast<double>(saved), 0.95 * static_cast<double>(plan.saved)) << name(architecture);
        EXPECT_LE(run.model.scratch_peak_bytes(), plan.scratch);
        EXPECT_GE(static_cast<double>(run.model.scratch_peak_bytes()), 0.3 * static_cast<double>(plan.scratch));
        const auto held = static_cast<double>(memory_use(DeviceKind::cpu).now_bytes - before);
        EXPECT_LE(held, 1.01 * static_cast<double>(plan.total())) << name(architecture);
        EXPECT_GE(held, 0.95 * static_cast<double>(plan.total())) << name(architecture);
      }
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
