#include "core/budget/best_case.h"

#include <gtest/gtest.h>

#include "core/model/accounting.h"
#include "tests/core/model/published_models.h"

namespace shoestring {
namespace {

/// DeepSeek-V3 on a device with a rate of its own for each format.
class BestCaseTest : public ::testing::Test {
 protected:
  BestCaseTest() {
    recipe_.precision.policy = PrecisionPolicy::fp8_block;
    recipe_.phases = {{.name = "first", .sequence = 4096, .global_batch = 10, .tokens = 3'000'000, .steps = 7},
                      {.name = "second", .sequence = 32768, .global_batch = 2, .tokens = 1'000'000, .steps = 5}};
    recipe_.phases[1].share = 3;
    hardware_.peak_flops[RateFormat::fp32] = 60e12;
    hardware_.peak_flops[RateFormat::bf16] = 1e15;
    hardware_.peak_flops[RateFormat::fp8] = 2e15;
    hardware_.achievable_flops[RateFormat::bf16] = 8e14;  // known: the peak does not count
  }

  double seconds_per_token(std::int64_t sequence) const {
    const FormatFlops flops = count_flops(model_, recipe_.precision, sequence).training_by_format();
    return flops.f32 / 60e12 + flops.bf16 / 8e14 + flops.fp8 / 2e15;
  }

  ModelConfig model_ = testing::deepseek_v3();
  Recipe recipe_;
  Hardware hardware_;
};

TEST_F(BestCaseTest, TokensCostAtLeastTheirProducts) {
  recipe_.schedule.horizon = Horizon::tokens;
  const BestCase best = best_case(recipe_, model_, hardware_, 1);
  ASSERT_EQ(best.phases.size(), 2u);
  EXPECT_EQ(best.phases[0].name, "first");
  EXPECT_DOUBLE_EQ(best.phases[0].gpu_hours, 3e6 * seconds_per_token(4096) / 3600);
  EXPECT_DOUBLE_EQ(best.phases[1].gpu_hours, 1e6 * seconds_per_token(32768) / 3600);
  EXPECT_GT(seconds_per_token(32768), seconds_per_token(4096));
  EXPECT_DOUBLE_EQ(best.tokens(), 4e6);
  EXPECT_DOUBLE_EQ(best.gpu_hours(), best.phases[0].gpu_hours + best.phases[1].gpu_hours);
}

TEST_F(BestCaseTest, StepsAreGlobalBatches) {
  recipe_.schedule.horizon = Horizon::steps;
  const BestCase best = best_case(recipe_, model_, hardware_, 1);
  EXPECT_DOUBLE_EQ(best.phases[0].tokens, 7 * 10 * 4096);
  EXPECT_DOUBLE_EQ(best.phases[1].tokens, 5 * 2 * 32768);
}

TEST_F(BestCaseTest, PhasesShareABudget) {
  recipe_.schedule.horizon = Horizon::budget;
  const BestCase best = best_case(recipe_, model_, hardware_, 8);
  EXPECT_DOUBLE_EQ(best.phases[0].gpu_hours, 2);
  EXPECT_DOUBLE_EQ(best.phases[1].gpu_hours, 6);
  EXPECT_DOUBLE_EQ(best.phases[1].tokens, 6 * 3600 / seconds_per_token(32768));
}

TEST_F(BestCaseTest, AFormatWithoutARateIsNamed) {
  hardware_.peak_flops[RateFormat::fp32] = 0;
  const BestCase best = best_case(recipe_, model_, hardware_, 8);
  EXPECT_EQ(best.unrated, RateFormat::fp32);
  EXPECT_TRUE(best.phases.empty());
}

}  // namespace
}  // namespace shoestring
