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

Recipe recipe_of(Architecture architecture, PrecisionPolicy policy) {
  Recipe recipe;
  recipe.model.architecture = architecture;
  recipe.model.experts = architecture == Architecture::deepseek_v3 ? 16 : 0;
  recipe.precision.policy = policy;
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
  EXPECT_GT(experts.times, 1);
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
