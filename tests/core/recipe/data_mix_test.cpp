#include "core/recipe/data_mix.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

Recipe two_sources() {
  Recipe recipe;
  recipe.data.train = {{"web", 3}, {"code", 1}};
  recipe.phases.push_back({.name = "p"});
  return recipe;
}

TEST(DataMix, PointsFollowTrainsOwnWeights) {
  Recipe recipe = two_sources();
  std::vector<MixPoint> points;
  EXPECT_EQ(parse_mix(phase_data(recipe, recipe.phases[0]), points), "");
  EXPECT_TRUE(points.empty());
  recipe.data.mix = {"0.5: 3 1", "80%:\t1 1", "80%: 0 5", "1: 1 3"};
  EXPECT_EQ(parse_mix(phase_data(recipe, recipe.phases[0]), points), "");
  ASSERT_EQ(points.size(), 5u);
  EXPECT_EQ(points[0].share, 0);
  EXPECT_EQ(points[0].weights, (std::vector<double>{0.75, 0.25}));
  EXPECT_DOUBLE_EQ(points[2].share, 0.8);
  EXPECT_EQ(points[3].weights, (std::vector<double>{0, 1}));
  EXPECT_EQ(points[4].weights, (std::vector<double>{0.25, 0.75}));
}

TEST(DataMix, MistakesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"3 1", "SHARE: WEIGHT"},         {"2: 3 1", "share of the phase"}, {": 3 1", "share of the phase"},
      {"0.5: 3", "has 1 weights"},      {"0.5: 3 1 1", "there are 2"},    {"0.5: 3 -1", "'-1' is no weight"},
      {"0.5: 3 x", "'x' is no weight"}, {"0.5: 0 0", "leaves no source"}, {"0.5: 3 nan", "'nan' is no weight"},
  };
  for (const auto& [item, expected] : cases) {
    Recipe recipe = two_sources();
    recipe.data.mix = {item};
    std::vector<MixPoint> points;
    const std::string mistake = parse_mix(phase_data(recipe, recipe.phases[0]), points);
    EXPECT_NE(mistake.find(expected), std::string::npos) << item << ": " << mistake;
  }
  Recipe recipe = two_sources();
  recipe.data.mix = {"0.5: 1 1", "0.4: 1 1"};
  std::vector<MixPoint> points;
  EXPECT_NE(parse_mix(phase_data(recipe, recipe.phases[0]), points).find("behind a later share"), std::string::npos);
  std::vector<double> epochs;
  for (const char* wrong : {"-1", "x", "1e9"}) {
    recipe.data.most_epochs = {wrong, "0"};
    EXPECT_NE(parse_most_epochs(phase_data(recipe, recipe.phases[0]), epochs), "") << wrong;
  }
  recipe.data.most_epochs = {"1"};
  EXPECT_NE(parse_most_epochs(phase_data(recipe, recipe.phases[0]), epochs).find("1 limits"), std::string::npos);
  recipe.data.most_epochs = {"1.5", "0"};
  EXPECT_EQ(parse_most_epochs(phase_data(recipe, recipe.phases[0]), epochs), "");
  EXPECT_EQ(epochs, (std::vector<double>{1.5, 0}));
}

// What [data] says of its sources says nothing of a phase's own.
TEST(DataMix, BelongsToItsSources) {
  Recipe recipe = two_sources();
  recipe.data.mix = {"1: 1 1"};
  recipe.data.most_epochs = {"4", "0"};
  EXPECT_EQ(phase_data(recipe, recipe.phases[0]).mix, recipe.data.mix);
  recipe.phases[0].mix = {"1: 1 2"};
  EXPECT_EQ(phase_data(recipe, recipe.phases[0]).mix, recipe.phases[0].mix);
  EXPECT_EQ(phase_data(recipe, recipe.phases[0]).most_epochs, recipe.data.most_epochs);
  recipe.phases[0].mix.clear();
  recipe.phases[0].train = {{"books", 1}};
  EXPECT_TRUE(phase_data(recipe, recipe.phases[0]).mix.empty());
  EXPECT_TRUE(phase_data(recipe, recipe.phases[0]).most_epochs.empty());
}

TEST(DataMix, LinesAreStepsAndJumpsAreSharp) {
  const std::vector<MixPoint> points = {{0, {0.75, 0.25}}, {0.5, {0.75, 0.25}}, {0.5, {0, 1}}, {1, {1, 0}}};
  const std::vector<MixturePoint> over = over_samples(points, 6400);
  EXPECT_EQ(over.front().first, 0);
  EXPECT_EQ(over.front().weights, points[0].weights);
  ASSERT_EQ(over.size(), 1u + 32u + 1u);
  EXPECT_EQ(over[1].first, 3200);
  EXPECT_NEAR(over[1].weights[0], 0.5 / 32, 1e-12) << "the middle of the first of 32 steps";
  EXPECT_EQ(over[2].first, 3300);
  EXPECT_NEAR(over[32].weights[0], 31.5 / 32, 1e-12);
  EXPECT_EQ(over.back().first, 6400);
  for (std::size_t at = 1; at < over.size(); ++at) EXPECT_GT(over[at].first, over[at - 1].first);
  // Fewer samples than steps: still rising, still the same ends.
  const std::vector<MixturePoint> few = over_samples(points, 7);
  for (std::size_t at = 1; at < few.size(); ++at) EXPECT_GT(few[at].first, few[at - 1].first);
  EXPECT_EQ(few.front().first, 0);
  EXPECT_EQ(few.back().weights, points.back().weights);
  EXPECT_TRUE(over_samples({}, 100).empty());
}

TEST(DataMix, KnowsThePhasesLength) {
  Recipe recipe = two_sources();
  PhaseSpec& phase = recipe.phases[0];
  phase.sequence = 100;
  phase.global_batch = 8;
  phase.tokens = 1001;
  phase.steps = 5;
  recipe.schedule.horizon = Horizon::tokens;
  EXPECT_EQ(phase_samples(recipe, phase), 11);
  recipe.schedule.horizon = Horizon::steps;
  EXPECT_EQ(phase_samples(recipe, phase), 40);
  phase.batch_ramp_from = 4;
  EXPECT_EQ(phase_samples(recipe, phase), 0);
  recipe.schedule.horizon = Horizon::budget;
  EXPECT_EQ(phase_samples(recipe, phase), 0);
}

}  // namespace
}  // namespace shoestring
