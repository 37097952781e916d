#include "core/recipe/validate.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/recipe/parse.h"
#include "data/prefetching_loader.h"
#include "kernels/router.h"

namespace shoestring {
namespace {

const std::vector<std::string> kBase = {"--run.name=r",        "--budget.gpu_hours=1",  "--model.layers=2",
                                        "--model.hidden=64",   "--model.heads=4",       "--model.feed_forward=128",
                                        "--data.train=shards", "--phase.p.sequence=64", "--phase.p.global_batch=8"};

/// The mistakes of a sound recipe after `changes` (which replace the base's keys).
std::string mistakes(const std::vector<std::string>& changes) {
  std::vector<std::string> overrides = changes;
  for (const std::string& base : kBase) {
    const std::string key = base.substr(0, base.find('=') + 1);
    bool changed = false;
    for (const std::string& change : changes) changed = changed || change.starts_with(key);
    if (!changed) overrides.push_back(base);
  }
  std::string text;
  for (const Mistake& mistake : read_recipe_text("[phase.p]\n", "r", overrides).mistakes) text += mistake.line() + "\n";
  return text;
}

struct Case {
  std::vector<std::string> changes;
  const char* expected;
};

TEST(ValidateRecipe, ASoundRecipeHasNoMistakes) {
  EXPECT_EQ(mistakes({}), "");
  EXPECT_EQ(mistakes({"--data.train=", "--phase.p.train=own", "--phase.p.objective=masked", "--phase.p.patience=2",
                      "--evaluation.every_steps=5", "--phase.p.validation=held", "--phase.p.loss_mean=documents",
                      "--phase.p.long_documents=cut"}),
            "");
  EXPECT_EQ(mistakes({"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--phase.p.batch_ramp_from=4",
                      "--phase.p.batch_ramp_tokens=5120", "--schedule.warmup_steps=29", "--schedule.kind=constant"}),
            "");
  EXPECT_EQ(mistakes({"--schedule.horizon=steps", "--phase.p.steps=100", "--data.train=web:3, code:1",
                      "--data.mix=0.8: 3 1, 1: 1 3", "--data.most_epochs=4, 2"}),
            "");
  EXPECT_EQ(
      mistakes({"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--phase.p.batch_ramp_from=4",
                "--phase.p.batch_ramp_tokens=5120", "--schedule.warmup_steps=21", "--schedule.decay_fraction=0.5"}),
      "")
      << "half of the tokens are two thirds of the steps";
}

TEST(ValidateRecipe, EveryContradictionHasItsMessage) {
  const Case cases[] = {
      {{"--run.name=../x"}, "run.name"},
      {{"--phase.p.loss_mean=documents"}, "needs phase.p.objective = masked"},
      {{"--phase.p.objective=masked", "--data.document_mask=no"}, "neither read into each other"},
      {{"--phase.p.objective=masked", "--data.fim_rate=0.1"}, "nor rearranged"},
      {{"--phase.p.patience=2"}, "set evaluation.every_steps"},
      {{"--phase.p.patience=2", "--evaluation.every_steps=5"}, "set data.validation or phase.p.validation"},
      {{"--lora.rank=4"}, "lora.rank needs model.from"},
      {{"--lora.rank=65"}, "no low rank: the narrowest side of a projection has 64"},
      {{"--lora.rank=4", "--lora.targets=q_proj, w_proj"}, "no projection 'w_proj'"},
      {{"--lora.rank=4", "--lora.targets="}, "nothing would be trained"},
      {{"--lora.rank=4", "--lora.targets=q_a_proj"}, "no projection 'q_a_proj', only q_proj, k_proj"},
      {{"--lora.rank=4", "--model.architecture=deepseek_v3", "--model.mtp_layers=1"}, "set model.mtp_layers = 0"},
      {{"--schedule.horizon=steps", "--phase.p.steps=9", "--data.mix=1: 1 1"}, "data.mix: '1: 1 1' has 2 weights"},
      {{"--schedule.horizon=budget", "--data.mix=1: 1"}, "depends on speed"},
      {{"--schedule.horizon=steps", "--phase.p.steps=9", "--phase.p.mix=1: 1", "--phase.p.batch_ramp_from=4"},
       "needs schedule.horizon = tokens"},
      {{"--data.train=web:1e-9, code:1e9"}, "data.train: 'web' has a weight of 1e-09 among 1000000000"},
      {{"--data.train=web:1e-9, code:1e9"}, "less than 2^-32 of them: it would never be drawn"},
      {{"--data.most_epochs=1, 2"}, "data.most_epochs: has 2 limits"},
      {{"--schedule.horizon=budget", "--data.most_epochs=4"}, "limits every source"},
      {{"--budget.gpu_hours=0"}, "no cap"},
      {{"--budget.gpu_hours=0", "--budget.job_hours=1"}, "no cap"},
      {{"--budget.usd_per_gpu_hour=2"}, "price_source"},
      {{"--budget.usd_per_gpu_hour=2"}, "price_date"},
      {{"--budget.usd_per_gpu_hour=2", "--budget.price_source=x", "--budget.price_date=March"}, "no date"},
      {{"--budget.usd_per_gpu_hour=2", "--budget.price_source=x", "--budget.price_date=2026-02-31"}, "no date"},
      {{"--budget.price_source=x"}, "without a price"},
      {{"--budget.usd=5"}, "cap in money needs a price"},
      {{"--budget.kwh=5"}, "needs the device's power"},
      {{"--budget.hardware=../cpu"}, "is a name, not a path"},
      {{"--kernels.pin=gemm"}, "write op=variant"},
      {{"--kernels.pin=gem=reference"}, "there is no op 'gem'; did you mean 'gemm'?"},
      {{"--kernels.pin=gemm=reference, gemm=avx5"}, "gemm has no variant 'avx5' in this build"},
      {{"--kernels.pin=gemm=avx5"}, "did you mean 'avx512'?"},
      {{"--kernels.pin=gemm=reference, gemm=avx512"}, "has gemm=reference and gemm=avx512: an op has one variant"},
      {{"--kernels.pin=gemm=reference", "--kernels.allow_reference=no"}, "what kernels.allow_reference = no refuses"},
      {{"--model.layers=0"}, "model.layers"},
      {{"--model.kv_heads=3"}, "does not divide heads"},
      {{"--model.experts=8"}, "model.experts means nothing for llama: it has no experts"},
      {{"--model.kv_lora_rank=8"}, "it has no latent attention"},
      {{"--model.mtp_layers=1"}, "it predicts one token at a time"},
      {{"--precision.policy=fp64"}, "fp64 is for tests"},
      {{"--parallel.stages=1000, 1"}, "is no number of layers"},
      {{"--parallel.stages=1"}, "layers together, the model has"},
      {{"--parallel.expert=2"}, "shares out experts, and the model has none"},
      {{"--parallel.reduction_groups=3"}, "does not divide the 8 micro-batches"},
      {{"--parallel.data=3"}, "does not divide the 8 micro-batches"},
      {{"--phase.p.micro_batch=3"}, "is not divisible by phase.p.micro_batch = 3"},
      {{"--phase.p.batch_ramp_from=4"}, "a ramp needs both"},
      {{"--phase.p.batch_ramp_from=16", "--phase.p.batch_ramp_tokens=1M"}, "is above phase.p.global_batch = 8"},
      {{"--phase.p.batch_ramp_from=3", "--phase.p.batch_ramp_tokens=1M", "--phase.p.micro_batch=2"},
       "batch_ramp_from = 3 is not"},
      {{"--schedule.horizon=tokens"}, "phase.p.tokens is missing"},
      {{"--schedule.horizon=steps"}, "phase.p.steps is missing"},
      {{"--schedule.horizon=steps", "--phase.p.steps=10", "--schedule.warmup_steps=10"}, "leaves nothing"},
      {{"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--schedule.warmup_steps=2000"},
       "leaves nothing of the 20 steps"},
      {{"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--phase.p.batch_ramp_from=4",
        "--phase.p.batch_ramp_tokens=5120", "--schedule.warmup_steps=30"},
       "leaves nothing of the 30 steps"},
      {{"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--phase.p.batch_ramp_from=4",
        "--phase.p.batch_ramp_tokens=20480"},
       "its batch never grows"},
      {{"--schedule.horizon=steps", "--phase.p.steps=30", "--phase.p.batch_ramp_from=4",
        "--phase.p.batch_ramp_tokens=20480"},
       "takes at least 56 steps, and the phase has 30: its batch never grows to global_batch; give it 11079 tokens"},
      {{"--schedule.horizon=steps", "--phase.p.steps=20", "--schedule.warmup_steps=15",
        "--schedule.decay_fraction=0.5"},
       "does not end before the decay begins, after 10 of the 20 steps"},
      {{"--schedule.horizon=tokens", "--phase.p.tokens=10240", "--phase.p.batch_ramp_from=4",
        "--phase.p.batch_ramp_tokens=5120", "--schedule.warmup_steps=22", "--schedule.decay_fraction=0.5"},
       "after 20 of the 30 steps"},
      {{"--guard.on_repeat=go_back", "--checkpoint.every_minutes=0"}, "needs checkpoints to go back to"},
      {{"--phase.p.share=0"}, "share must be above 0"},
      {{"--phase.p.global_batch=0"}, "global_batch is missing"},
      {{"--phase.p.sequence=0"}, "sequence is missing"},
      {{"--model.max_positions=32"}, "is longer than model.max_positions"},
  };
  for (const Case& wanted : cases) {
    const std::string found = mistakes(wanted.changes);
    EXPECT_NE(found.find(wanted.expected), std::string::npos) << wanted.changes[0] << " gave\n" << found;
  }
}

TEST(ValidateRecipe, LimitsAreThoseOfTheCodeThatRuns) {
  const auto at = [](const char* key, std::int64_t value) { return fmt::format("--data.{}={}", key, value); };
  EXPECT_EQ(mistakes({at("prefetch", kMostPrefetch)}), "");
  EXPECT_NE(mistakes({at("prefetch", kMostPrefetch + 1)}).find("data.prefetch"), std::string::npos);
  EXPECT_NE(mistakes({"--phase.p.sequence=1Mi"}).find("phase.p.sequence"), std::string::npos);
  const std::string experts = mistakes({"--model.architecture=qwen3_moe", "--model.experts=1025"});
  EXPECT_NE(experts.find(std::to_string(kRouterMaxExperts)), std::string::npos) << experts;
}

TEST(ValidateRecipe, ARuleIsSilentWhenItsKeyIsMistakenAlready) {
  const std::string found = mistakes({"--phase.p.micro_batch=x"});
  EXPECT_EQ(std::count(found.begin(), found.end(), '\n'), 1) << found;
}

TEST(ValidateRecipe, OneMistakeIsSaidOnce) {
  for (const char* change : {"--model.experts=8", "--model.mtp_layers=1", "--model.kv_lora_rank=8"}) {
    const std::string found = mistakes({change});
    EXPECT_EQ(std::count(found.begin(), found.end(), '\n'), 1) << found;
  }
}

TEST(ValidateRecipe, EvaluationsOfNothingAreTold) {
  Recipe recipe;
  recipe.phases = {{.name = "p"}, {.name = "q"}};
  EXPECT_EQ(held_out_caveat(recipe), "");
  recipe.evaluation.tokens = 100;
  EXPECT_EQ(held_out_caveat(recipe),
            "evaluation.tokens = 100: there is no held-out data, so no loss of it is measured; give data.validation");
  recipe.evaluation.every_steps = 5;
  EXPECT_EQ(held_out_caveat(recipe).find("evaluation.every_steps = 5: "), 0u);
  recipe.phases[1].validation = {{"held"}};
  EXPECT_EQ(held_out_caveat(recipe), "");
}

TEST(ValidateRecipe, MissingThingsPointAtTheirSection) {
  const RecipeReading reading = read_recipe_text("[run]\nseed = 1\n[phase.p]\nsequence = 8\n", "r");
  std::string text;
  for (const Mistake& mistake : reading.mistakes) text += mistake.line() + "\n";
  EXPECT_NE(text.find("r:1: run.name is missing"), std::string::npos) << text;
  EXPECT_NE(text.find("r:3: phase.p.global_batch is missing"), std::string::npos) << text;
}

}  // namespace
}  // namespace shoestring
