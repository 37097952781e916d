#include "core/recipe/parse.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "core/recipe/explain.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

const std::string kSound = R"([run]
name = small
[budget]
gpu_hours = 30min   # half an hour
[model]
architecture = llama
layers = 2
hidden = 64
heads = 4
feed_forward = 128
[data]
train = shards/a, shards/b:0.5
[phase.pretrain]
sequence = 4Ki
global_batch = 8
)";

std::string all_lines(const RecipeReading& reading) {
  std::string text;
  for (const Mistake& mistake : reading.mistakes) text += mistake.line() + "\n";
  return text;
}

class RecipeFiles : public testing::TemporaryFolder {
 public:
  std::filesystem::path write(const std::string& name, const std::string& text) const {
    testing::write_text(path() / name, text);
    return path() / name;
  }
};

TEST(ParseRecipe, ReadsValuesAndRemembersTheirOrigin) {
  const RecipeReading reading = parse_recipe_text(kSound, "small.recipe");
  EXPECT_EQ(reading.recipe.budget.gpu_hours, 0.5);
  EXPECT_EQ(reading.recipe.model.architecture, Architecture::llama);
  ASSERT_EQ(reading.recipe.data.train.size(), 2u);
  EXPECT_EQ(reading.recipe.data.train[1].path, "shards/b");
  EXPECT_EQ(reading.recipe.data.train[1].weight, 0.5);
  ASSERT_EQ(reading.recipe.phases.size(), 1u);
  EXPECT_EQ(reading.recipe.phases[0].name, "pretrain");
  EXPECT_EQ(reading.recipe.phases[0].sequence, 4096);
  EXPECT_EQ(reading.origins.at("model.layers").place(), "small.recipe:7");
  EXPECT_FALSE(reading.origins.contains("model.kv_heads"));
}

TEST(ParseRecipe, OverridesWin) {
  const std::vector<std::string> overrides = {"--budget.gpu_hours=2", "--phase.pretrain.global_batch=16"};
  const RecipeReading reading = parse_recipe_text(kSound, "small.recipe", overrides);
  EXPECT_EQ(reading.recipe.budget.gpu_hours, 2);
  EXPECT_EQ(reading.recipe.phases[0].global_batch, 16);
  EXPECT_EQ(reading.origins.at("budget.gpu_hours").place(), "command line");
}

TEST(ParseRecipe, TheIncludingFileWinsOverTheIncluded) {
  RecipeFiles files;
  files.write("base.recipe", kSound);
  const auto top = files.write(
      "top.recipe", "include = base.recipe\n[model]\nlayers = 5\n[phase.more]\nsequence = 64\nglobal_batch = 2\n");
  const RecipeReading reading = parse_recipe(top);
  EXPECT_EQ(reading.recipe.model.layers, 5);
  EXPECT_EQ(reading.recipe.model.hidden, 64);
  ASSERT_EQ(reading.recipe.phases.size(), 2u);
  EXPECT_EQ(reading.recipe.phases[1].name, "more");
  EXPECT_EQ(reading.origins.at("model.hidden").line, 8);
  EXPECT_EQ(reading.files.size(), 2u);
}

// What might have been meant is looked up for mistakes that are shown, and a section's name stands with each of its
// entries: a megabyte of nonsense takes neither minutes nor gigabytes.
TEST(ParseRecipe, ManyMistakesAreCountedButNotAllPondered) {
  std::string text = "[" + std::string(60000, 'x') + "\n[run]\n";
  for (int i = 0; i < 5000; ++i) text += "seee = 1\n";
  const RecipeReading reading = read_recipe_text(text, "long.recipe");
  std::size_t suggestions = 0;
  std::size_t held = 0;
  for (const Mistake& mistake : reading.mistakes) {
    suggestions += mistake.text.find("did you mean 'run.seed'") != std::string::npos ? 1 : 0;
    held += mistake.key.size() + mistake.text.size();
  }
  EXPECT_GE(reading.mistakes.size(), 5000u);
  EXPECT_GE(suggestions, 50u);
  EXPECT_LE(suggestions, 100u);
  EXPECT_LT(held, 100 * text.size());
}

// Numbers of doubles that are none of floats, or far from any that trains: a typing error's.
TEST(ParseRecipe, RatesAndSmallNumbersHaveUpperBounds) {
  const std::string lines = all_lines(read_recipe_text(R"([model]
norm_eps = 1e308
init_std = 1e39
[optimizer]
epsilon = 8
[phase.pretrain]
learning_rate = 2e3
)",
                                                       "bad.recipe"));
  for (const char* expected : {"bad.recipe:2: model.norm_eps = '1e308' must be above 0 and at most 1",
                               "bad.recipe:3: model.init_std = '1e39' must be above 0 and at most 1e+30",
                               "bad.recipe:5: optimizer.epsilon = '8' must be above 0 and at most 1",
                               "bad.recipe:7: phase.pretrain.learning_rate = '2e3' must lie between 0 and 100"}) {
    EXPECT_NE(lines.find(expected), std::string::npos) << expected << "\nnot in\n" << lines;
  }
}

TEST(ParseRecipe, TenMistakesAreTenMessages) {
  const std::string text = R"([run]
nam = small
[budgett]
gpu_hours = 1
[model]
architecture = lama
layers = two
hidden = 64
heads = -4
hidden = 128
kv_heads
[precision]
policy = fp8
[schedule]
learning_rate = 3x
[phase.pretrain]
sequence = 4K
micro_batch = 3
global_batch = 8
[guard
window = 1
)";
  const RecipeReading reading = read_recipe_text(text, "bad.recipe");
  const std::string lines = all_lines(reading);
  for (const char* expected : {
           "bad.recipe:2: unknown key 'run.nam'; did you mean 'run.name'?",
           "bad.recipe:3: unknown section 'budgett'; did you mean 'budget'?",
           "bad.recipe:6: model.architecture = 'lama' is none of llama, qwen2, qwen3, qwen3_moe, deepseek_v2, "
           "deepseek_v3; did you "
           "mean 'llama'?",
           "bad.recipe:7: model.layers = 'two' is not a number",
           "bad.recipe:9: model.heads = '-4' must lie between 0 and ",
           "bad.recipe:10: model.hidden is given again; first on line 8",
           "bad.recipe:11: 'kv_heads' is neither [section] nor key = value",
           "bad.recipe:13: precision.policy = 'fp8' is none of fp64, fp32, bf16, fp8_block, fp8_tensor, mxfp8; did you "
           "mean 'fp8_block'?",
           "bad.recipe:15: schedule.learning_rate = '3x' is a number followed by text",
           "bad.recipe:17: phase.pretrain.sequence = '4K' may mean 1000 or 1024: write 4Ki (4096) or 4000",
           "bad.recipe:19: phase.pretrain.global_batch = 8 is not divisible by phase.pretrain.micro_batch = 3",
           "bad.recipe:20: '[guard' lacks its closing ']'",
           "bad.recipe:21: guard.window = '1' must lie between 2 and ",
           "data.train is missing",
           "no cap: give budget.gpu_hours",
       }) {
    EXPECT_NE(lines.find(expected), std::string::npos) << expected << "\nnot in\n" << lines;
  }
  EXPECT_EQ(lines.find("run.name is missing") == std::string::npos, false) << lines;
  try {
    parse_recipe_text(text, "bad.recipe");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
    EXPECT_NE(std::string(error.what()).find("mistakes:"), std::string::npos);
  }
}

TEST(ParseRecipe, MistakesComeInLineOrder) {
  const RecipeReading reading = read_recipe_text("[model]\nlayers = x\nfoo = 1\nheads = y\n", "bad.recipe");
  int before = 0;
  for (const Mistake& mistake : reading.mistakes) {
    if (mistake.origin.file.empty()) break;
    EXPECT_GE(mistake.origin.line, before);
    before = mistake.origin.line;
  }
}

TEST(ParseRecipe, MistakesOfOverridesAreReportedToo) {
  const std::vector<std::string> overrides = {
      "--model.layer=3", "--model.layers=x",   "-v", "--phase.pretrian.sequence=64", "--run.seed=1",
      "--run.seed=2",    "--budget.gpu_hours="};
  const std::string lines = all_lines(read_recipe_text(kSound, "small.recipe", overrides));
  for (const char* expected :
       {"command line: unknown key 'model.layer'; did you mean 'model.layers'?",
        "command line: model.layers = 'x' is not a number", "command line: '-v' is no override",
        "no section 'phase.pretrian'; did you mean 'phase.pretrain'?", "run.seed", "budget.gpu_hours"}) {
    EXPECT_NE(lines.find(expected), std::string::npos) << expected << "\nnot in\n" << lines;
  }
}

// A checkpoint keeps the recipe that it was trained by; a program that asks more of schedules must read it still.
TEST(ParseRecipe, ACopyOfARecipeIsNotAskedAboutItsSchedule) {
  const std::vector<std::string> overrides = {"--schedule.horizon=steps", "--schedule.warmup_steps=5",
                                              "--phase.pretrain.steps=5"};
  EXPECT_NE(all_lines(read_recipe_text(kSound, "r", overrides)).find("warmup_steps"), std::string::npos);
  EXPECT_EQ(parse_recipe_text(kSound, "r", overrides).recipe.schedule.warmup_steps, 5);
}

// A letter that only looks like one of ours: what is there and what is meant would read the same.
TEST(ParseRecipe, ALookalikeLetterIsSpelt) {
  const std::string text = kSound + "[mod\xD0\xB5l]\nx = 1\n[model]\nhidd\xD0\xB5n = 1\nnorm_\xD0\xB5ps = 1\n";
  const std::vector<std::string> overrides = {
      "--run.se\xD0\xB5"
      "d=1",
      "--precision.policy=fp\xEF\xBC\x93"
      "2",
      "--phase.pretr\xD0\xB0in.steps=1"};
  const std::string lines = all_lines(read_recipe_text(text, "r", overrides));
  for (const char* expected :
       {"unknown section 'mod<U+0435>l'; did you mean 'model'?", "'model.hidd<U+0435>n'; did you mean 'model.hidden'?",
        "'run.se<U+0435>d'; did you mean 'run.seed'?", "precision.policy = 'fp<U+FF13>2' is none of",
        "no section 'phase.pretr<U+0430>in'; did you mean 'phase.pretrain'?"}) {
    EXPECT_NE(lines.find(expected), std::string::npos) << expected << "\nnot in\n" << lines;
  }
  EXPECT_EQ(lines.find("\xD0"), std::string::npos) << lines;
}

TEST(ParseRecipe, APhaseKeyWithoutItsPhaseNamesOne) {
  for (const auto& [given, meant] : {std::pair{"steps", "steps"}, std::pair{"global_bach", "global_batch"}}) {
    const std::vector<std::string> overrides = {std::string("--phase.") + given + "=5"};
    EXPECT_EQ(
        all_lines(read_recipe_text(kSound, "small.recipe", overrides)),
        std::string("command line: unknown key 'phase.") + given + "'; did you mean 'phase.pretrain." + meant + "'?\n");
  }
}

TEST(ParseRecipe, AnEmptyOverrideEmptiesTheKey) {
  const std::string text = kSound + "[data]\nvalidation = shards/v\n";
  EXPECT_EQ(parse_recipe_text(text, "r").recipe.data.validation.size(), 1u);
  const std::vector<std::string> overrides = {"--data.validation="};
  EXPECT_TRUE(parse_recipe_text(text, "r", overrides).recipe.data.validation.empty());
}

TEST(ParseRecipe, KeysOfOtherSectionsAreFound) {
  const std::string lines =
      all_lines(read_recipe_text(kSound + "[schedule]\nbeta1 = 0.9\n[run]\nglobal_batch = 3\n", "r"));
  EXPECT_NE(lines.find("did you mean 'optimizer.beta1'?"), std::string::npos) << lines;
  EXPECT_NE(lines.find("did you mean 'phase.NAME.global_batch'?"), std::string::npos) << lines;
}

TEST(ParseRecipe, MissingFileIsMissingInput) {
  try {
    parse_recipe("/nonexistent/x.recipe");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
  }
}

TEST(ParseRecipe, IncludesAreBounded) {
  RecipeFiles files;
  const auto a = files.write("a.recipe", "include = b.recipe\n" + kSound);
  files.write("b.recipe", "include = a.recipe\n");
  EXPECT_NE(all_lines(read_recipe(a)).find("b.recipe:1: including 'a.recipe' leads back to itself"), std::string::npos);

  for (int i = 0; i < 40; ++i) {
    files.write("deep" + std::to_string(i) + ".recipe", "include = deep" + std::to_string(i + 1) + ".recipe\n");
  }
  EXPECT_NE(all_lines(read_recipe(files.path() / "deep0.recipe")).find("nested deeper than 16"), std::string::npos);

  for (int i = 0; i < 12; ++i) {  // two includes each: 2^12 readings if nothing stopped them
    const std::string next = "include = wide" + std::to_string(i + 1) + ".recipe\n";
    files.write("wide" + std::to_string(i) + ".recipe", next + next);
  }
  files.write("wide12.recipe", "");
  EXPECT_NE(all_lines(read_recipe(files.path() / "wide0.recipe")).find("more than 64 files"), std::string::npos);

  const auto fifo = files.path() / "pipe.recipe";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const auto top = files.write("top.recipe", "include = pipe.recipe\n[run]\ninclude = a.recipe\n");
  const std::string lines = all_lines(read_recipe(top));
  EXPECT_NE(lines.find("is not a regular file"), std::string::npos) << lines;
  EXPECT_NE(lines.find("include must stand before the first section"), std::string::npos) << lines;
}

TEST(ParseRecipe, HostileTextIsRefusedLineByLine) {
  const std::string nul("[run]\nname = a\0b\n", 17);
  EXPECT_NE(all_lines(read_recipe_text(nul, "r")).find("r:2: 'name = a\\x00b' holds a control character"),
            std::string::npos)
      << all_lines(read_recipe_text(nul, "r"));
  const std::string escape = all_lines(read_recipe_text("[run]\nname = \x1b[2J\xff\n", "r"));
  EXPECT_EQ(escape.find('\x1b'), std::string::npos);
  const std::string huge = "[run]\nname = " + std::string(1 << 20, 'a') + "\n";
  EXPECT_NE(all_lines(read_recipe_text(huge, "r")).find("bytes long, more than 65536"), std::string::npos);
  RecipeFiles files;
  try {
    parse_recipe(files.write("big.recipe", std::string((1 << 20) + 1, '#')));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_recipe);
  }
  std::string many;
  for (int i = 0; i < 20000; ++i) many += "a=1\n";
  const RecipeReading reading = read_recipe_text(many, "r");
  EXPECT_GE(reading.mistakes.size(), 20000u);
  std::string phases;
  for (int i = 0; i < 1000; ++i) phases += "[phase.p" + std::to_string(i) + "]\nsequence=1\n";
  EXPECT_LE(read_recipe_text(phases, "r").recipe.phases.size(), 64u);
  EXPECT_FALSE(read_recipe_text("[phase.a b]\nsequence=1\n[phase.]\n[]\n[\n=\n==\n[phase]\n", "r").mistakes.empty());
}

TEST(ParseRecipe, TextSurvivesLineEndsAndByteOrderMark) {
  std::string text = "\xEF\xBB\xBF";
  for (const char letter : kSound) {
    if (letter == '\n') text.push_back('\r');
    text.push_back(letter);
  }
  EXPECT_EQ(canonical_text(parse_recipe_text(text, "r").recipe), canonical_text(parse_recipe_text(kSound, "r").recipe));
}

TEST(ParseRecipe, OverridesAreTellableFromFlags) {
  EXPECT_TRUE(looks_like_override("--budget.gpu_hours=2"));
  EXPECT_FALSE(looks_like_override("--resume"));
  EXPECT_FALSE(looks_like_override("--out=a.b"));
  EXPECT_FALSE(looks_like_override("budget.gpu_hours=2"));
}

}  // namespace
}  // namespace shoestring
