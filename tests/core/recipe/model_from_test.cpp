#include "core/recipe/model_from.h"

#include <gtest/gtest.h>

#include "core/recipe/explain.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kConfig = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
  "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "initializer_range": 0.04,
  "tie_word_embeddings": true
})";

constexpr const char* kRest =
    "[budget]\ngpu_hours = 1\n[data]\ntrain = shards\n[phase.sft]\nsequence = 64\nglobal_batch = 2\nsteps = "
    "4\n[schedule]\nhorizon = steps\n";

class ModelFrom : public ::testing::Test {
 protected:
  ModelFrom() { write_text(folder_ / "config.json", kConfig); }

  RecipeReading read(const std::string& model) const {
    write_text(folder_ / "x.recipe",
               "[run]\nname = x\n[model]\nfrom = " + folder_.path().string() + "\n" + model + kRest);
    return read_recipe(folder_ / "x.recipe");
  }

  TemporaryFolder folder_;
};

TEST_F(ModelFrom, AWholeModelIsLeftToTheFolder) {
  const RecipeReading reading = read("");
  EXPECT_TRUE(reading.mistakes.empty());
  const ModelSpec& model = reading.recipe.model;
  EXPECT_EQ(model.architecture, Architecture::llama);
  EXPECT_EQ(model.vocabulary, 512);
  EXPECT_EQ(model.hidden, 64);
  EXPECT_EQ(model.kv_heads, 2);
  EXPECT_EQ(model.norm_eps, 1e-5);
  EXPECT_EQ(model.rope_theta, 1e5);
  EXPECT_TRUE(model.tie_embeddings);
  EXPECT_EQ(reading.origins.at("model.hidden").place(), (folder_ / "config.json").string());
}

TEST_F(ModelFrom, WhatAgreesMayBeSaidAndWhatIsOfTrainingMayDiffer) {
  const RecipeReading reading =
      read("architecture = llama\nhidden = 64\nhead_dim = 0\nnorm_eps = 0.00001\ninit_std = 0.5\n");
  EXPECT_TRUE(reading.mistakes.empty());
  EXPECT_EQ(reading.recipe.model.init_std, 0.5);
}

TEST_F(ModelFrom, WhatDiffersIsAMistakeWithBothValues) {
  const RecipeReading reading = read("hidden = 32\ntie_embeddings = no\n");
  ASSERT_EQ(reading.mistakes.size(), 2U);
  const std::string line = reading.mistakes[0].line();
  EXPECT_NE(line.find("x.recipe:5: model.hidden = 32, but "), std::string::npos) << line;
  EXPECT_NE(line.find("config.json says 64"), std::string::npos) << line;
  EXPECT_EQ(reading.mistakes[1].key, "model.tie_embeddings");
}

// A run goes on, and its checkpoints are read, without the folder that it began with.
TEST_F(ModelFrom, AFolderThatIsGoneIsKnownFromTheRun) {
  const std::string directory = (folder_ / "run").string();
  const auto read_run = [&] {
    write_text(folder_ / "x.recipe", "[run]\nname = x\ndirectory = " + directory +
                                         "\n[model]\nfrom = " + folder_.path().string() + "\n" + kRest);
    return read_recipe(folder_ / "x.recipe");
  };
  const std::string canonical = canonical_text(read_run().recipe);
  std::filesystem::create_directories(folder_ / "run/source");
  std::filesystem::rename(folder_ / "config.json", folder_ / "run/source/config.json");
  const RecipeReading again = read_run();
  EXPECT_TRUE(again.mistakes.empty());
  EXPECT_EQ(canonical_text(again.recipe), canonical);
  std::filesystem::remove(folder_ / "run/source/config.json");
  EXPECT_THROW(read_run(), Error);
  EXPECT_EQ(canonical_text(parse_recipe_text(canonical, "state.json").recipe), canonical);
}

// [model] may be left to the first phase's folder as well; what later phases begin with is the same model.
TEST_F(ModelFrom, PhasesTakeTheirWeightsFromFoldersOfOneModel) {
  const auto read_phases = [&](const std::string& first, const std::string& second) {
    write_text(folder_ / "x.recipe",
               "[run]\nname = x\n" + std::string(kRest) + "[phase.sft]\nfrom = " + first +
                   "\n[phase.more]\nsequence = 64\nglobal_batch = 2\nsteps = 4\nfrom = " + second + "\n");
    return read_recipe(folder_ / "x.recipe");
  };
  const std::string here = folder_.path().string();
  const RecipeReading reading = read_phases(here, here);
  EXPECT_TRUE(reading.mistakes.empty()) << reading.mistakes[0].line();
  EXPECT_EQ(reading.recipe.model.hidden, 64);
  EXPECT_EQ(weights_source(reading.recipe, 0).kept, "source");
  EXPECT_EQ(weights_source(reading.recipe, 1).key, "phase.more.from");
  EXPECT_EQ(weights_source(reading.recipe, 1).kept, "source.more");

  std::string other = kConfig;
  other.replace(other.find("\"hidden_size\": 64"), 17, "\"hidden_size\": 80");
  write_text(folder_ / "other/checkpoints/step_00000008/config.json", other);
  write_text(folder_ / "other/checkpoints/latest", "step_00000008\n");
  const RecipeReading torn = read_phases(here, here + "/other");
  ASSERT_EQ(torn.mistakes.size(), 1U);
  const std::string line = torn.mistakes[0].line();
  EXPECT_NE(line.find("model.hidden = 64, but " + here + "/other/checkpoints/step_00000008/config.json says 80"),
            std::string::npos)
      << line;
  EXPECT_EQ(torn.recipe.model.hidden, 64);
}

TEST_F(ModelFrom, ARunBeginsOnce) {
  const RecipeReading reading = read("[phase.sft]\nfrom = " + folder_.path().string() + "\n");
  ASSERT_EQ(reading.mistakes.size(), 1U);
  EXPECT_NE(reading.mistakes[0].line().find("phase.sft.from and model.from both name"), std::string::npos);
}

TEST_F(ModelFrom, FoldersThatAreNotThereOrNotSound) {
  const auto code_of = [&](const std::string& config) {
    write_text(folder_ / "config.json", config);
    try {
      read("");
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("config.json"), std::string::npos) << error.what();
      return error.code();
    }
    return ExitCode::done;
  };
  EXPECT_EQ(code_of("{}"), ExitCode::bad_data);
  EXPECT_EQ(code_of(std::string(2 << 20, ' ')), ExitCode::bad_data);
  std::filesystem::remove(folder_ / "config.json");
  EXPECT_THROW(read(""), Error);
}

}  // namespace
}  // namespace shoestring
