#include "core/recipe/explain.h"

#include <gtest/gtest.h>

#include "core/recipe/keys.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

const std::filesystem::path kRecipes = std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes";

TEST(Explain, TellsValueOriginAndMeaning) {
  const std::vector<std::string> overrides = {"--run.seed=5"};
  const RecipeReading reading = parse_recipe(kRecipes / "tiny_muon.recipe", overrides);
  const std::string name = explain(reading, "optimizer.name");
  EXPECT_NE(name.find("optimizer.name = muon"), std::string::npos) << name;
  EXPECT_NE(name.find("tiny_muon.recipe:"), std::string::npos) << name;
  EXPECT_NE(name.find("adamw | muon"), std::string::npos) << name;
  EXPECT_NE(explain(reading, "run.seed").find("(command line)"), std::string::npos);
  EXPECT_NE(explain(reading, "model.hidden").find("tiny_dense.recipe:"), std::string::npos);
  EXPECT_NE(explain(reading, "optimizer.epsilon").find("(default)"), std::string::npos);
  EXPECT_NE(explain(reading, "phase.pretrain.sequence").find("= 512"), std::string::npos);
  EXPECT_NE(explain(reading, "seed").find("run.seed = 5"), std::string::npos);
}

TEST(Explain, WithoutAKeyTellsAll) {
  const RecipeReading reading = parse_recipe(kRecipes / "tiny_dense.recipe");
  const std::string all = explain(reading);
  for (const Key& key : recipe_keys()) EXPECT_NE(all.find("." + key.name + " = "), std::string::npos) << key.name;
}

TEST(Explain, AnUnknownKeyNamesTheNearest) {
  const RecipeReading reading = parse_recipe(kRecipes / "tiny_dense.recipe");
  for (const auto& [asked, near] : {std::pair{"model.hiden", "model.hidden"}, std::pair{"seedd", "seed"}}) {
    try {
      explain(reading, asked);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::usage);
      EXPECT_EQ(error.what(), std::string("there is no key '") + asked + "'; did you mean '" + near + "'?");
    }
  }
}

TEST(Explain, EveryKeyHasAMeaningAndADefaultItAccepts) {
  for (const Key& key : recipe_keys()) {
    EXPECT_FALSE(key.meaning.empty()) << key.name;
    Recipe recipe;
    recipe.phases.emplace_back();
    const bool empty = default_text(key).empty();
    if (!empty) {
      EXPECT_EQ(key.assign(recipe, 0, default_text(key)), "") << key.name;
    }
    EXPECT_EQ(key.print(recipe, 0), default_text(key)) << key.name;
    EXPECT_NE(key_reference().find("`" + key.name + "`"), std::string::npos);
  }
}

TEST(Explain, CanonicalTextParsesBackToTheSameRecipe) {
  for (const char* name : {"tiny_moe", "tiny_dense", "tiny_muon", "deepseek_v3"}) {
    const Recipe recipe = parse_recipe(kRecipes / (std::string(name) + ".recipe")).recipe;
    const std::string text = canonical_text(recipe);
    EXPECT_EQ(canonical_text(parse_recipe_text(text, "copy").recipe), text) << name;
    EXPECT_EQ(recipe_hash(recipe).size(), 16u);
  }
}

TEST(Explain, ResumeMayChangeTheBudgetButNotTheModel) {
  const RecipeReading before = parse_recipe(kRecipes / "tiny_dense.recipe");
  Recipe now = before.recipe;
  now.budget.gpu_hours = 9;
  now.run.threads = 3;
  now.checkpoint.every_minutes = 7;
  now.evaluation.every_steps = 3;
  now.data.train = {{"moved/train", 1}};  // the data plan knows whether it is the same data
  now.data.validation = {{"moved/validation", 1}};
  now.data.tokenizer = "moved/tokenizer.model";
  EXPECT_TRUE(resume_differences(before.recipe, now).empty());
  EXPECT_NE(recipe_hash(before.recipe), recipe_hash(now));
  EXPECT_NO_THROW(check_resume(before.recipe, now));
  now.run.seed = 3;
  now.precision.policy = PrecisionPolicy::fp32;
  now.phases.push_back({.name = "more", .sequence = 64, .global_batch = 2});
  const auto differences = resume_differences(before.recipe, now);
  ASSERT_GE(differences.size(), 3u);
  EXPECT_EQ(differences[0].key, "run.seed");
  EXPECT_EQ(differences[0].before, "17");
  EXPECT_EQ(differences[0].now, "3");
  try {
    check_resume(before.recipe, now);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find("precision.policy: fp32 was bf16"), std::string::npos) << error.what();
  }
}

// Earlier recipes knew no automatic objective; whether another one reads the same shards otherwise, their plan knows.
TEST(Explain, ResumeTakesAnAutomaticObjectiveForTheNextToken) {
  const RecipeReading before = parse_recipe(kRecipes / "tiny_dense.recipe");
  Recipe now = before.recipe;
  ASSERT_EQ(now.phases[0].objective, ObjectiveName::automatic);
  now.phases[0].objective = ObjectiveName::next_token;
  EXPECT_TRUE(resume_differences(before.recipe, now).empty());
  EXPECT_TRUE(resume_differences(now, before.recipe).empty());
  now.phases[0].objective = ObjectiveName::masked;
  EXPECT_FALSE(resume_differences(before.recipe, now).empty());
}

}  // namespace
}  // namespace shoestring
