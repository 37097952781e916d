#include "core/training/patience.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Patience, FollowsTheSlowestStep) {
  Patience patience(0);
  EXPECT_EQ(patience.steps().progress_seconds, 600);  // nothing is known yet
  EXPECT_EQ(patience.steps().sign_seconds, 60);
  patience.step_took(0.15);
  EXPECT_EQ(patience.steps(), (WaitLimits{10, 10}));  // what a busy machine may hold one up
  patience.step_took(7);
  patience.step_took(3);
  EXPECT_EQ(patience.steps(), (WaitLimits{70, 70}));
  patience.new_phase();  // with longer sequences, say
  EXPECT_EQ(patience.steps().progress_seconds, 600);
}

TEST(Patience, IsLongerOnlyForFiles) {
  Patience patience(0);
  patience.step_took(1);
  EXPECT_EQ(patience.files(), (WaitLimits{4 * 3600, 60}));
  patience.files_take(20);
  EXPECT_EQ(patience.files().sign_seconds, 200);
  EXPECT_EQ(patience.steps(), (WaitLimits{10, 10}));
  EXPECT_EQ(patience.grace(), 75);
}

TEST(Patience, ARecipeMaySayIt) {
  Patience patience(30);
  EXPECT_EQ(patience.steps(), (WaitLimits{30, 30}));
  patience.step_took(100);
  EXPECT_EQ(patience.steps(), (WaitLimits{30, 30}));
  EXPECT_EQ(patience.files().sign_seconds, 60);
}

}  // namespace
}  // namespace shoestring
