#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/explain.h"
#include "core/recipe/keys.h"
#include "core/recipe/parse.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::TemporaryFolder;
using testing::write_text;

constexpr const char* kDense =
    "[run]\nname = r\n[budget]\ngpu_hours = 1\n[model]\nlayers = 2\nhidden = 64\nheads = 4\nfeed_forward = 128\n"
    "[data]\ntrain = shards\n[phase.p]\nsequence = 64\nglobal_batch = 8\n";

constexpr const char* kMixture =
    "[run]\nname = r\n[budget]\ngpu_hours = 1\n[model]\narchitecture = deepseek_v3\nlayers = 2\nhidden = 64\n"
    "heads = 2\nkv_lora_rank = 16\nqk_nope_head_dim = 16\nqk_rope_head_dim = 16\nv_head_dim = 16\nfeed_forward = 64\n"
    "dense_layers = 1\nexperts = 4\nexperts_per_token = 2\nexpert_feed_forward = 32\n[data]\ntrain = shards\n"
    "[phase.p]\nsequence = 64\nglobal_batch = 8\n";

std::string lines(const RecipeReading& reading) {
  std::string text;
  for (const Mistake& mistake : reading.mistakes) text += mistake.line() + "\n";
  return text;
}

std::string mistakes(const char* recipe, const std::vector<std::string>& overrides) {
  return lines(read_recipe_text(recipe, "r", overrides));
}

struct Case {
  std::vector<std::string> unread;  ///< overrides, of which the first is blamed
  std::vector<std::string> heeded;  ///< further ones that give it a meaning
  const char* recipe = kDense;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {{"--model.rope_factor=4"}, {"--model.rope_scaling=yarn", "--model.rope_original_positions=64"}},
      {{"--model.rope_original_positions=64"}, {"--model.rope_scaling=yarn", "--model.rope_factor=4"}},
      {{"--model.rope_low_frequency_factor=2"}, {"--model.rope_scaling=llama3", "--model.rope_original_positions=64"}},
      {{"--model.rope_high_frequency_factor=3"}, {"--model.rope_scaling=llama3", "--model.rope_original_positions=64"}},
      {{"--model.rope_beta_fast=16"}, {"--model.rope_scaling=yarn", "--model.rope_original_positions=64"}},
      {{"--model.rope_beta_slow=2"}, {"--model.rope_scaling=yarn", "--model.rope_original_positions=64"}},
      {{"--model.rope_mscale=2"}, {"--model.rope_scaling=yarn", "--model.rope_original_positions=64"}},
      {{"--model.rope_mscale_all_dim=1"}, {"--model.rope_scaling=yarn", "--model.rope_original_positions=64"}},
      {{"--model.experts=8", "--model.dense_layers=2"}, {"--model.layers=3"}, kMixture},
      {{"--model.experts=8", "--model.dense_layers=2"}, {"--model.mtp_layers=1"}, kMixture},
      {{"--model.mtp_weight=0.1"}, {"--model.mtp_layers=1"}, kMixture},
      {{"--precision.scales=power_of_two"}, {"--precision.policy=fp8_block"}},
      {{"--precision.gradients_e5m2=yes"}, {"--precision.policy=mxfp8"}},
      {{"--precision.forward=fp32"}, {"--precision.policy=fp32"}},
      {{"--precision.input_gradient=fp32"}, {"--precision.policy=fp8_tensor"}},
      {{"--precision.weight_gradient=bf16", "--precision.policy=fp32"}, {}},
      {{"--budget.price_date=2026-11-21"}, {"--budget.usd_per_gpu_hour=2", "--budget.price_source=x"}},
      {{"--parallel.stages=measured"}, {"--parallel.pipeline=2"}},
      {{"--parallel.stages_per_rank=3"}, {"--parallel.schedule=interleaved"}},
      {{"--data.stage_bytes=1GB"}, {"--data.stage=/fast"}},
      {{"--optimizer.muon_momentum=0.9"}, {"--optimizer.name=muon"}},
      {{"--optimizer.muon_iterations=6"}, {"--optimizer.name=muon"}},
      {{"--lora.alpha=4"}, {"--lora.rank=4", "--model.from=gone"}},
      {{"--lora.targets=q_proj"}, {"--lora.rank=4", "--model.from=gone"}},
      {{"--phase.p.lora=no"}, {}},
      {{"--lora.rank=4", "--phase.p.lora=no"}, {}},
      {{"--schedule.decay_fraction=0.5", "--schedule.kind=constant"}, {}},
      {{"--schedule.decay_fraction=0.5", "--schedule.kind=cosine"}, {}},
      {{"--schedule.final_fraction=0", "--schedule.kind=deepseek"}, {}},
      {{"--schedule.final_fraction=0", "--schedule.decay_fraction=0"}, {}},
      {{"--schedule.final_fraction=0", "--schedule.kind=constant"}, {}},
      {{"--phase.p.steps=20"}, {"--schedule.horizon=steps"}},
      {{"--phase.p.tokens=20480"}, {"--schedule.horizon=tokens"}},
      {{"--phase.p.tokens=20480", "--schedule.horizon=steps", "--phase.p.steps=20"}, {}},
      {{"--phase.p.share=0.5", "--schedule.horizon=steps", "--phase.p.steps=20"}, {}},
  };
  return all;
}

TEST(UnreadKeys, AreMistakesThatSayWhatGivesThemAMeaning) {
  for (const Case& one : cases()) {
    const std::string key = one.unread[0].substr(2, one.unread[0].find('=') - 2);
    const std::string text = mistakes(one.recipe, one.unread);
    EXPECT_NE(text.find(fmt::format("command line: {} = ", key)), std::string::npos) << one.unread[0] << "\n" << text;
    EXPECT_NE(text.find("means nothing"), std::string::npos) << text;
    EXPECT_NE(text.find(fmt::format("or leave {} out", key)), std::string::npos) << text;
    EXPECT_EQ(text.find('\n') + 1, text.size()) << "one mistake: " << text;
  }
}

TEST(UnreadKeys, AreNoneWhereTheirSwitchIsGiven) {
  for (const Case& one : cases()) {
    if (one.heeded.empty()) continue;
    std::vector<std::string> all = one.unread;
    all.insert(all.end(), one.heeded.begin(), one.heeded.end());
    EXPECT_EQ(mistakes(one.recipe, all), "") << one.unread[0];
  }
}

TEST(UnreadKeys, ProductsMayBeNamedAsThePolicyHasThem) {
  EXPECT_EQ(mistakes(kDense, {"--precision.forward=bf16", "--precision.input_gradient=bf16",
                              "--precision.weight_gradient=bf16", "--precision.cache_fp8=no"}),
            "");
}

TEST(UnreadKeys, ADefaultValueIsNoMistake) {
  std::vector<std::string> defaults;
  for (const Key& key : recipe_keys()) {
    if (key.section == "schedule" || key.section == "optimizer" || key.section == "precision") {
      defaults.push_back(fmt::format("--{}.{}={}", key.section, key.name, default_text(key)));
    }
  }
  EXPECT_EQ(mistakes(kDense, defaults), "");
}

// What is switched off from the command line, or over an include, is known to be off; what is given there is not.
TEST(UnreadKeys, TheMoreImportantPlaceMaySwitchOff) {
  const TemporaryFolder folder;
  const std::string base = std::string(kDense) + "tokens = 10240\n[schedule]\nhorizon = tokens\ndecay_fraction = 0.5\n";
  write_text(folder / "base.recipe", base);
  const auto read = [&](const std::string& top, const std::vector<std::string>& overrides) {
    write_text(folder / "top.recipe", "include = base.recipe\n" + top);
    return lines(read_recipe(folder / "top.recipe", overrides));
  };
  EXPECT_EQ(read("", {}), "");
  EXPECT_EQ(read("", {"--schedule.horizon=steps", "--phase.p.steps=20", "--schedule.kind=constant"}), "");
  EXPECT_EQ(read("[schedule]\nhorizon = steps\nkind = cosine\n[phase.p]\nsteps = 20\n", {}), "");
  const std::string given = read("[phase.p]\nsteps = 20\n", {});
  EXPECT_NE(given.find("top.recipe:3: phase.p.steps = '20' means nothing without schedule.horizon = steps: set that "
                       "(--schedule.horizon=steps), or leave phase.p.steps out"),
            std::string::npos)
      << given;
  EXPECT_NE(read("[schedule]\nkind = cosine\n", {"--schedule.decay_fraction=0.1"}), "");
}

// What has been trained stays readable.
TEST(UnreadKeys, ACheckpointsRecipeIsNotJudged) {
  const std::vector<std::string> overrides = {"--schedule.decay_fraction=0.5", "--schedule.kind=constant"};
  const std::string text = canonical_text(read_recipe_text(kDense, "r", overrides).recipe);
  EXPECT_EQ(canonical_text(parse_recipe_text(text, "state").recipe), text);
}

// What a run keeps as its recipe can be trained as one, and be gone on with: the command line's words are in it now,
// and no more important place is left that would excuse what they switched off.
TEST(UnreadKeys, AreCommentsInARecipeOfItsOwn) {
  for (const Case& one : cases()) {
    // A family with experts asks for their number though no layer would have them: refused either way.
    if (one.unread[0] == "--model.experts=8") continue;
    const Recipe begun = read_recipe_text(one.recipe, "r", one.unread).recipe;
    const std::string text = standalone_text(begun);
    EXPECT_NE(text.find("(nothing reads it)"), std::string::npos) << one.unread[0];
    const RecipeReading read = read_recipe_text(text, "run/recipe.recipe");
    EXPECT_EQ(lines(read), "") << one.unread[0] << "\n" << text;
    EXPECT_TRUE(resume_differences(begun, read.recipe).empty()) << one.unread[0];
    EXPECT_EQ(standalone_text(read.recipe), canonical_text(read.recipe)) << one.unread[0];
  }
  const Recipe plain = read_recipe_text(kDense, "r").recipe;
  EXPECT_EQ(standalone_text(plain), canonical_text(plain));
}

TEST(UnreadKeys, OfARunThatGoesOnMayChange) {
  const auto recipe = [](std::vector<std::string> overrides) {
    return read_recipe_text(kDense, "r", overrides).recipe;
  };
  const Recipe constant = recipe({"--schedule.kind=constant"});
  EXPECT_TRUE(
      resume_differences(constant, recipe({"--schedule.kind=constant", "--schedule.decay_fraction=0.5"})).empty());
  EXPECT_FALSE(resume_differences(recipe({}), recipe({"--schedule.decay_fraction=0.5"})).empty());
  EXPECT_FALSE(resume_differences(recipe({"--schedule.decay_fraction=0.5"}), constant).empty());
}

TEST(UnreadKeys, RecipesOfOursHaveNone) {
  const TemporaryFolder model;
  write_text(model / "config.json", R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true})");
  int found = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(std::filesystem::path(SHOESTRING_SOURCE_DIR) / "recipes")) {
    if (entry.path().extension() != ".recipe") continue;
    ++found;
    std::vector<std::string> overrides;
    if (entry.path().stem() == "sft_smollm2") overrides.push_back("--model.from=" + model.path().string());
    EXPECT_EQ(lines(read_recipe(entry.path(), overrides)), "") << entry.path();
  }
  EXPECT_GE(found, 8);
}

}  // namespace
}  // namespace shoestring
