#include "core/training/flops_tally.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/model/accounting.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

Recipe recipe_of(const std::vector<std::int64_t>& sequences) {
  Recipe recipe;
  recipe.precision = policy(PrecisionPolicy::bf16);
  for (const std::int64_t sequence : sequences) recipe.phases.emplace_back().sequence = sequence;
  return recipe;
}

// The same model in two phases: each token costs what its own phase's sequences make of attention.
TEST(FlopsTally, CountsEachPhaseByItsOwnSequences) {
  const ModelConfig model = small_config(Architecture::llama);
  const Recipe recipe = recipe_of({16, 64});
  FlopsTally tally;
  double expected = 0;
  for (const PhaseSpec& phase : recipe.phases) {
    tally.enter(model, recipe, phase);
    tally.add(1000);
    tally.add(24);
    expected += 1024 * count_flops(model, recipe.precision, phase.sequence).training_by_format().bf16;
  }
  EXPECT_DOUBLE_EQ(tally.done()[RateFormat::bf16], expected);
  EXPECT_EQ(tally.done()[RateFormat::fp8], 0);
}

TEST(FlopsTally, UtilisationIsOfFormatsWithAPeak) {
  const ModelConfig model = small_config(Architecture::llama);
  const Recipe recipe = recipe_of({16});
  FlopsTally tally;
  tally.enter(model, recipe, recipe.phases[0]);
  tally.add(1);
  PerFormat peak;
  EXPECT_TRUE(tally.utilisation(10, 2, peak).empty());
  peak[RateFormat::bf16] = 20 * tally.done()[RateFormat::bf16];
  peak[RateFormat::fp8] = 1;
  EXPECT_TRUE(tally.utilisation(10, 0, peak).empty());
  const auto shares = tally.utilisation(10, 2, peak);
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_EQ(shares[0].first, "bf16");
  EXPECT_DOUBLE_EQ(shares[0].second, 0.25);  // 5 tokens a second of 20
}

}  // namespace
}  // namespace shoestring::testing
