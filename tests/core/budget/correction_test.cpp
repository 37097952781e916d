#include "core/budget/correction.h"

#include <gtest/gtest.h>

#include "core/budget/run_estimate.h"
#include "core/recipe/parse.h"

namespace shoestring {
namespace {

constexpr StepParts kPaper{
    .compute = 6, .recompute = 1, .tensor = 0.5, .expert = 1.5, .data = 0, .bubble = 2, .optimizer = 1};

PhaseSpeed came(double compute, double messages, double bubble, double waiting) {
  PhaseSpeed speed;
  speed.parts[Category::compute] = compute;
  speed.parts[Category::exposed_communication] = messages;
  speed.parts[Category::bubble] = bubble;
  speed.parts[Category::data_wait] = waiting;
  speed.step_seconds = speed.parts.total();
  return speed;
}

TEST(Correction, IsOfEachCostByItself) {
  const Correction correction = correction_of(kPaper, came(12, 1, 3, 1.6));
  EXPECT_DOUBLE_EQ(correction.compute, 1.5);
  EXPECT_DOUBLE_EQ(correction.messages, 0.5);
  EXPECT_DOUBLE_EQ(correction.bubble, 1.5);
  EXPECT_NEAR(correction.others, 0.1, 1e-12);
  EXPECT_EQ(correction.text(), "computing x 1.50, messages x 0.50, bubble x 1.50, other waiting 10.0% more");
  EXPECT_NEAR(corrected(kPaper, correction).total(), 17.6, 1e-12);  // what was measured
}

TEST(Correction, LeavesWhatWasNotThere) {
  // One rank sends nothing and waits for nobody: its steps say nothing of messages.
  const Correction alone = correction_of({.compute = 2}, came(3, 0, 0, 0));
  EXPECT_EQ(alone.compute, 1.5);
  EXPECT_EQ(alone.messages, 1);
  EXPECT_EQ(alone.bubble, 1);
  EXPECT_EQ(alone.others, 0);
  EXPECT_EQ(correction_of(kPaper, came(8, 0, 0, 0)).messages, 1);
  EXPECT_FALSE(correction_of(kPaper, came(8, 2, 2, 0)).measured());
  EXPECT_EQ(correction_of(kPaper, PhaseSpeed{}).others, 0);
}

// Twice the computing time: more than the hours of before, less than twice, since messages stay as on paper.
TEST(Correction, CarriesOverToOtherDeviceCounts) {
  const std::filesystem::path recipes = std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes";
  Recipe recipe = parse_recipe(recipes / "deepseek_v3.recipe", {}).recipe;
  recipe.phases.resize(1);
  const ModelConfig config = resolve_model(recipe.model, 0, 131072);
  const Hardware h800 = read_hardware(find_hardware("h800", recipes));
  const PlanLayout layout = parse_layout("pipeline=16 expert=64 schedule=dualpipev recompute=full", {.devices = 2048});
  const RunEstimate paper = estimate_run(recipe, config, h800, 2048, layout, 0);
  ASSERT_TRUE(paper.refusal.empty()) << paper.refusal;
  const std::vector<Correction> twice(recipe.phases.size(), Correction{.compute = 2});
  const RunEstimate slower = estimate_run(recipe, config, h800, 2048, layout, 0, twice);
  EXPECT_GT(slower.gpu_hours(), 1.3 * paper.gpu_hours());
  EXPECT_LT(slower.gpu_hours(), 2 * paper.gpu_hours());
  EXPECT_NE(slower.assumptions.front().find("computing x 2.00"), std::string::npos) << slower.assumptions.front();

  Speeds speeds;
  speeds.phases.resize(recipe.phases.size(), came(1, 0, 0, 0));
  const std::vector<Correction> from_steps = corrections_of(recipe, config, h800, layout, speeds);
  ASSERT_EQ(from_steps.size(), recipe.phases.size());
  const auto again = rank_layouts(recipe, config, recipe.phases.front(), h800, 2048, layout, from_steps.front());
  ASSERT_TRUE(again.front().step) << again.front().reason;
  const StepParts& step = again.front().step->seconds;
  EXPECT_NEAR(step.compute + step.recompute + step.optimizer, 1, 1e-9);
}

}  // namespace
}  // namespace shoestring
