#include "core/training/reference_cost.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/variant_list.h"

namespace shoestring {
namespace {

std::string_view nothing(std::string_view) { return {}; }
std::string_view all_but_plain_rows(std::string_view variant) {
  return variant == "reference" || variant == "portable" ? "" : "anything";
}

Recipe recipe_of(Architecture architecture, PrecisionPolicy policy, std::int64_t sequence = 512) {
  Recipe recipe;
  recipe.model.architecture = architecture;
  recipe.model.vocabulary = 4096;
  recipe.model.layers = 6;
  recipe.model.hidden = 256;
  recipe.model.heads = 4;
  recipe.model.feed_forward = 768;
  if (architecture == Architecture::deepseek_v3) {
    recipe.model.q_lora_rank = 128;
    recipe.model.kv_lora_rank = 128;
    recipe.model.qk_nope_head_dim = 64;
    recipe.model.qk_rope_head_dim = 32;
    recipe.model.v_head_dim = 64;
    recipe.model.experts = 16;
    recipe.model.experts_per_token = 2;
    recipe.model.expert_feed_forward = 128;
    recipe.model.dense_layers = 1;
  } else {
    recipe.model.kv_heads = 2;
  }
  recipe.precision.policy = policy;
  PhaseSpec phase;
  phase.sequence = sequence;
  phase.micro_batch = 1;
  phase.global_batch = 2;
  recipe.phases = {phase};
  return recipe;
}

TEST(ReferenceCost, IsNoneWhereEveryRowRuns) {
  const Recipe recipe = recipe_of(Architecture::deepseek_v3, PrecisionPolicy::fp8_block);
  const ReferenceCost cost = reference_cost(recipe, nothing);
  EXPECT_TRUE(cost.ops.empty());
  EXPECT_EQ(cost.times, 1);
  EXPECT_EQ(cost.to_string(), "");
  EXPECT_NO_THROW(check_reference_cost(cost, AllowReference::automatic));
}

TEST(ReferenceCost, NamesTheOpsOfThisRecipeAlone) {
  const auto names = [](const ReferenceCost& cost, const char* op) {
    return cost.to_string().find(op) != std::string::npos;
  };
  const ReferenceCost dense = reference_cost(recipe_of(Architecture::llama, PrecisionPolicy::fp32), all_but_plain_rows);
  EXPECT_TRUE(names(dense, " gemm=portable"));
  EXPECT_TRUE(names(dense, "attention_backward=reference"));
  EXPECT_FALSE(names(dense, "grouped_gemm"));
  EXPECT_FALSE(names(dense, "quantize"));
  const ReferenceCost experts =
      reference_cost(recipe_of(Architecture::deepseek_v3, PrecisionPolicy::fp8_block), all_but_plain_rows);
  EXPECT_TRUE(names(experts, "grouped_gemm"));
  EXPECT_TRUE(names(experts, "quantize"));
}

// As the plain rows were timed against AVX2 on tiny_dense (512 tokens: 7.9 times in FP32) and at four times its length.
TEST(ReferenceCost, GrowsWithTheShareOfAttention) {
  const auto times = [](std::int64_t sequence) {
    return reference_cost(recipe_of(Architecture::llama, PrecisionPolicy::fp32, sequence), all_but_plain_rows).times;
  };
  EXPECT_NEAR(times(512), 7.9, 0.8);
  EXPECT_GT(times(2048), 1.4 * times(512));
  Recipe phases = recipe_of(Architecture::llama, PrecisionPolicy::fp32, 2048);
  phases.phases.push_back(recipe_of(Architecture::llama, PrecisionPolicy::fp32, 512).phases[0]);
  EXPECT_EQ(reference_cost(phases, all_but_plain_rows).times, times(2048));
}

// A machine that lacks the row of one op pays for that op alone.
TEST(ReferenceCost, CountsOnlyWhatIsMissing) {
  const Recipe recipe = recipe_of(Architecture::llama, PrecisionPolicy::fp32);
  const ReferenceCost products = reference_cost(recipe, [](std::string_view variant) -> std::string_view {
    return variant == "simd" ? "" : all_but_plain_rows(variant);
  });
  EXPECT_EQ(products.ops, std::vector<std::string>{"gemm=portable"});
  EXPECT_GT(products.times, 1);
  EXPECT_LT(products.times, reference_cost(recipe, all_but_plain_rows).times);
}

TEST(ReferenceCost, NoMeansNoReferenceAtAll) {
  EXPECT_NO_THROW(check_reference_cost({{"gemm=portable"}, 4}, AllowReference::no));
  try {
    check_reference_cost({{"gemm=portable", "rope=reference"}, 4}, AllowReference::no);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find("kernels.allow_reference = no"), std::string::npos) << error.what();
  }
}

TEST(ReferenceCost, MoreThanTenTimesAsLongNeedsTheRecipesYes) {
  const ReferenceCost cost{{"gemm=portable"}, 10.6};
  EXPECT_NO_THROW(check_reference_cost({{"rope=reference"}, 9.5}, AllowReference::automatic));
  EXPECT_NO_THROW(check_reference_cost(cost, AllowReference::yes));
  try {
    check_reference_cost(cost, AllowReference::automatic);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_STREQ(error.what(),
                 "no vector rows here for gemm=portable: a step takes about 11 times as long; set "
                 "kernels.allow_reference = yes to train all the same");
  }
}

}  // namespace
}  // namespace shoestring
