#include <gtest/gtest.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "core/budget/ledger_history.h"
#include "kernels/base/file.h"
#include "tests/support/temporary_folder.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

void expect_holds(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in\n" << text;
}

// What train refuses.
TEST(Plan, SaysThatNothingWasHeldOut) {
  const testing::Workplace place;
  EXPECT_EQ(place.run("plan small.recipe").output.find("train would refuse"), std::string::npos);
  ASSERT_EQ(place.run("data build text --out whole --tokenizer bytes --hold-out 0 --threads 1").exit_code, 0);
  const std::string whole = "small.recipe --data.train=whole/train --data.validation=whole/validation";
  const testing::Ended plan = place.run("plan " + whole);
  EXPECT_EQ(plan.exit_code, 0) << plan.output;
  expect_holds(
      plan.output,
      {"data         train would refuse this (exit code 66): whole/validation: nothing was held out", "parameters"});
  EXPECT_EQ(place.run("train " + whole).exit_code, 66);
}

// The figures that the technical report of DeepSeek-V3 gives, and what follows from them on an H800.
TEST(Plan, PrintsWhatDeepSeekV3IsAndCosts) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const testing::Ended plan = place.run("plan " + recipe);
  EXPECT_EQ(plan.exit_code, 0);
  expect_holds(plan.output, {"671B total, 36.63B active", "260.6B per trained token in phase pretrain",
                             "250.4B without multi-token prediction", "2.788M GPU-hours (budget.gpu_hours), $5.576M"});
  expect_holds(plan.output, {"pretrain", "14.8T", "898K", "context_128k", "14.93T", "33.4% of the cap"});
}

TEST(Plan, SaysThatTheEndIsOutOfReach) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const testing::Ended plan = place.run("plan " + recipe + " --budget.gpu_hours=0.5M");
  EXPECT_EQ(plan.exit_code, 0);
  expect_holds(plan.output, {"186.3% of the cap: this run cannot reach its end inside it"});
}

// Foretold from the hardware file alone; within 15% of the published 2,664K GPU-hours.
TEST(Plan, ForetellsDeepSeekV3) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const testing::Ended plan = place.run("plan " + recipe + " --devices 2048 --json");
  ASSERT_EQ(plan.exit_code, 0) << plan.output;
  const nlohmann::json estimate = nlohmann::json::parse(plan.output);
  EXPECT_EQ(estimate.at("schema"), "shoestring.estimate/1");
  EXPECT_NEAR(estimate.at("phases").at(0).at("gpu_hours").get<double>() / 2664e3, 1, 0.15);
  EXPECT_LT(estimate.at("gpu_hours_low"), 2788e3);
  EXPECT_GT(estimate.at("gpu_hours_high"), 2788e3);
  EXPECT_FALSE(estimate.at("assumptions").empty());

  // The layout that was published for the first phase, its 16 x 2 stages run through the simulator of their schedule:
  // bubble, exposed exchange of experts, and what the fullest device holds.
  const std::string text = read_file(recipe, 1 << 20);
  testing::write_text(place.path() / "pretrain.recipe", text.substr(0, text.find("[phase.context_32k]")));
  const std::string published = " --layout \"pipeline=16 expert=64 schedule=dualpipev recompute=selective\"";
  const testing::Ended layout = place.run("plan pretrain.recipe --devices 2048 --json" + published);
  ASSERT_EQ(layout.exit_code, 0) << layout.output;
  const nlohmann::json first = nlohmann::json::parse(layout.output).at("phases").at(0);
  EXPECT_EQ(first.at("layout"), "data 128, pipeline 16 (dualpipev), expert 64, selective recomputation");
  const nlohmann::json& seconds = first.at("step_seconds");
  double step = 0;
  for (const nlohmann::json& part : seconds) step += part.get<double>();
  EXPECT_GT(seconds.at("bubble").get<double>() / step, 0.01);
  EXPECT_LT(seconds.at("bubble").get<double>() / step, 0.2);
  EXPECT_GE(seconds.at("expert").get<double>(), 0);
  double bytes = 0;
  for (const nlohmann::json& part : first.at("memory_bytes")) bytes += part.get<double>();
  EXPECT_GT(bytes, 20e9);
  EXPECT_LT(bytes, 80e9);

  const testing::Ended alone = place.run("plan " + recipe + " --devices 8");
  EXPECT_EQ(alone.exit_code, 78);
  expect_holds(alone.output,
               {"does not fit: phase pretrain has no layout on 8 h800", "the cheapest change first", " devices "});
  const testing::Ended wrong = place.run("plan " + recipe + " --layout \"pipline=2\"");
  EXPECT_EQ(wrong.exit_code, 64);
  expect_holds(wrong.output, {"layout: unknown word 'pipline=2'", "pipeline"});
}

// Of two words that contradict each other, or of an option that another leaves undone, neither is taken in silence.
TEST(Plan, RefusesOptionsThatWouldBePassedOver) {
  const testing::Workplace place;
  const std::string plan = "plan " + std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe ";
  for (const auto& [options, said] : std::vector<std::pair<std::string, const char*>>{
           {"--law chinchilla", "--law is of --suggest"},
           {"--measure 1 --json", "--json prints what is reckoned"},
           {"--measure 1 --suggest", "--suggest prints what is reckoned"},
           {"--suggest --layout pipeline=2", "--suggest chooses the layout"},
           {"--layout \"pipeline=2 pipeline=4\"", "layout: pipeline is given twice"}}) {
    const testing::Ended ended = place.run(plan + options);
    EXPECT_EQ(ended.exit_code, 64) << options;
    expect_holds(ended.output, {said});
  }
}

// Foretold before it, set beside what came after it; and none is made when the run has begun.
TEST(Plan, IsMeasuredAndComparedWithTheRun) {
  const testing::Workplace place;
  const testing::Ended plan = place.run("plan small.recipe --run.name=foretold --measure 0.2");
  EXPECT_EQ(plan.exit_code, 0) << plan.output;
  expect_holds(plan.output, {"foretold", "stored in runs/foretold/plan.json"});
  const std::filesystem::path file = place.run_folder("foretold") / "plan.json";
  const nlohmann::json stored = nlohmann::json::parse(read_file(file, 1 << 20));
  EXPECT_EQ(stored.at("schema"), "shoestring.plan/1");

  EXPECT_EQ(place.run(place.train("foretold")).exit_code, 0);
  const nlohmann::json report = nlohmann::json::parse(read_file(place.run_folder("foretold") / "report.json", 1 << 20));
  EXPECT_EQ(stored.at("steps"), report.at("steps"));
  EXPECT_EQ(stored.at("tokens"), report.at("predicted").at("tokens"));
  EXPECT_NEAR(report.at("predicted").at("tokens_error").get<double>(), 0, 0.02);
  expect_holds(place.run("report runs/foretold").output, {"predicted, actual", "GPU-hours: compute"});
  // Measuring was an attempt of its own, and is on the bill.
  ASSERT_EQ(report.at("attempts").size(), 2u);
  const double all = stored.at("gpu_hours").get<double>();
  EXPECT_GT(stored.at("categories").at("startup").get<double>(), 0);
  EXPECT_LT(stored.at("categories").at("startup").get<double>(), all);

  const std::string before = read_file(file, 1 << 20);
  const testing::Ended again = place.run("plan small.recipe --run.name=foretold --measure 0.2");
  EXPECT_EQ(again.exit_code, 0);
  expect_holds(again.output, {"not stored: runs/foretold has begun"});
  EXPECT_EQ(read_file(file, 1 << 20), before);
}

// Its time is charged, and the run has not begun: the same command makes a plan.
TEST(Plan, ATrialIsLeftWhenAsked) {
  const testing::Workplace place;
  const std::string measure = "plan small.recipe --run.name=left --budget.gpu_hours=1000 --measure ";
  int attempts = 0;
  for (const int signal : {SIGTERM, SIGINT}) {
    const testing::Ended left = place.interrupt("left", measure + "120", signal, testing::after(0));
    EXPECT_EQ(left.exit_code, 75) << left.output;
    expect_holds(left.output,
                 {"the speed trial was left as asked; its time is charged to runs/left; nothing is stored, "
                  "run the same command to measure anew"});
    EXPECT_EQ(left.output.find("saving"), std::string::npos) << left.output;
    const LedgerHistory history = read_ledger(place.run_folder("left"));
    ASSERT_EQ(history.attempts.size(), static_cast<std::size_t>(++attempts));
    EXPECT_EQ(history.attempts.back().reason, "measured");
    EXPECT_GT(history.attempts.back().charged.total(), 0);
    EXPECT_FALSE(std::filesystem::exists(place.run_folder("left") / "plan.json"));
  }
  const testing::Ended plan = place.run(measure + "0.2");
  EXPECT_EQ(plan.exit_code, 0) << plan.output;
  expect_holds(plan.output, {"stored in runs/left/plan.json"});
}

// The lowest expected loss for the recipe's budget, by a cited law.
TEST(Plan, SuggestsAModel) {
  const testing::Workplace place;
  const std::string recipe = std::string(SHOESTRING_SOURCE_DIR) + "/recipes/deepseek_v3.recipe";
  const std::string asked = "plan " + recipe + " --budget.gpu_hours=2000 --devices 8 --suggest";
  const testing::Ended text = place.run(asked + " --law chinchilla");
  EXPECT_EQ(text.exit_code, 0) << text.output;
  expect_holds(text.output, {"suggested", "arXiv 2203.15556", "[model]", "learning_rate = ", "global_batch = "});
  const testing::Ended json = place.run(asked + " --json");
  ASSERT_EQ(json.exit_code, 0) << json.output;
  const nlohmann::json made = nlohmann::json::parse(json.output);
  EXPECT_EQ(made.at("schema"), "shoestring.suggestion/1");
  EXPECT_EQ(made.at("law"), "joint_moe");
  EXPECT_LE(made.at("suggestions").at(0).at("loss"), made.at("suggestions").at(1).at("loss"));
  EXPECT_LE(made.at("suggestions").at(0).at("gpu_hours"), 2000);
  EXPECT_EQ(place.run(asked + " --law kaplan").exit_code, 64);
}

}  // namespace
}  // namespace shoestring
