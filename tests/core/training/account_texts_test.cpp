#include "core/training/account_texts.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

// The last line says what is saved, where, and how to go on where there is more to come.
TEST(AccountTexts, AnEndSaysWhatIsSavedAndHowToGoOn) {
  EXPECT_EQ(end_text("tiny", Stop::signal, 40, "runs/tiny/checkpoints/step_00000040"),
            "tiny: left as asked after step 40; runs/tiny/checkpoints/step_00000040 is saved, the same command goes on "
            "from there");
  EXPECT_EQ(end_text("tiny", Stop::budget, 90, "c"), "tiny: the budget is used up after step 90; c is its model");
  EXPECT_EQ(end_text("tiny", Stop::horizon, 90, "c"), "tiny: done after step 90; c is its model");
}

TEST(AccountTexts, AStepThatStoodOutIsTold) {
  const auto about = [](StepVerdict verdict) {
    return std::string(judgement_notice(3, {.verdict = verdict, .why = "the norm is 9"}).about);
  };
  EXPECT_EQ(about(StepVerdict::apply), "clipped");
  EXPECT_EQ(about(StepVerdict::skip), "skipped");
  EXPECT_EQ(about(StepVerdict::end), "skipped");
  EXPECT_EQ(about(StepVerdict::go_back), "went back");
  EXPECT_EQ(judgement_notice(3, {.verdict = StepVerdict::skip, .why = "the norm is 9"}).text,
            "step 3: the norm is 9; the step was skipped");
}

TEST(AccountTexts, AScoreHasItsErrorWhereThereIsOne) {
  SuiteScore score{.task = "arc", .metric = "acc", .requests = 8, .value = 0.25, .error = 0.125};
  EXPECT_EQ(score_text(10, score), "step 10: arc: acc 0.2500, standard error 0.1250 (8 requests)");
  score.error = -1;
  EXPECT_EQ(score_text(10, score), "step 10: arc: acc 0.2500 (8 requests)");
}

}  // namespace
}  // namespace shoestring
