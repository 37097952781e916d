#include "core/budget/suggestion.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace shoestring {
namespace {

const std::filesystem::path kRecipes = std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes";

class SuggestionTest : public ::testing::Test {
 protected:
  SuggestionTest() {
    recipe_.phases = {{.name = "pretrain", .sequence = 2048, .micro_batch = 1, .global_batch = 64}};
    recipe_.checkpoint.every_minutes = 30;
  }
  std::vector<Suggestion> suggested(double gpu_hours, const char* law) const {
    return suggest({recipe_, hardware_, 32000, 8, gpu_hours, scaling_law_named(law)});
  }

  Recipe recipe_;
  Hardware hardware_ = read_hardware(find_hardware("h100", kRecipes));
};

// Hoffmann et al. find some twenty tokens a parameter; here a larger model is also the better used one.
TEST_F(SuggestionTest, BuysWhatTheLawSays) {
  const std::vector<Suggestion> found = suggested(500, "chinchilla_refit");
  ASSERT_FALSE(found.empty());
  const Suggestion& best = found.front();
  EXPECT_GT(best.tokens / best.parameters, 8);
  EXPECT_LT(best.tokens / best.parameters, 50);
  EXPECT_LE(best.gpu_hours, 500);
  EXPECT_GT(best.gpu_hours, 0.99 * 500);
  EXPECT_NEAR(best.steps * static_cast<double>(best.global_batch) * 2048 / best.tokens, 1, 1e-9);
  for (const Suggestion& one : found) {
    EXPECT_EQ(one.model.experts, 0) << "this law knows no mixtures";
    EXPECT_GE(one.loss, best.loss);
  }
}

TEST_F(SuggestionTest, MoreHoursBuyALargerModelAndALowerLoss) {
  const Suggestion small = suggested(20, "chinchilla_refit").front();
  const Suggestion large = suggested(2000, "chinchilla_refit").front();
  EXPECT_GT(large.active, 3 * small.active);
  EXPECT_GT(large.tokens, 3 * small.tokens);
  EXPECT_LT(large.loss, small.loss);
  EXPECT_LT(large.learning_rate, small.learning_rate);
  EXPECT_GT(large.global_batch, small.global_batch);
}

TEST_F(SuggestionTest, AMixtureIsWorthItsExpertsOnlyWhereTheLawKnowsThem) {
  const std::vector<Suggestion> found = suggested(500, "joint_moe");
  const auto is_mixture = [](const Suggestion& one) { return one.model.experts > 0; };
  EXPECT_TRUE(std::any_of(found.begin(), found.end(), is_mixture));
  EXPECT_FALSE(std::all_of(found.begin(), found.end(), is_mixture));
  EXPECT_TRUE(is_mixture(found.front()));
  EXPECT_GT(found.front().parameters, 2 * found.front().active);
}

TEST_F(SuggestionTest, NothingIsSuggestedWhereNothingFits) {
  hardware_.memory_bytes = 1e8;
  EXPECT_TRUE(suggested(500, "joint_moe").empty());
}

}  // namespace
}  // namespace shoestring
