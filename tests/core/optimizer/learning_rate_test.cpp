#include "core/optimizer/learning_rate.h"

#include <gtest/gtest.h>

#include <cmath>

namespace shoestring {
namespace {

ScheduleSpec spec(LearningRateKind kind) {
  ScheduleSpec schedule;
  schedule.kind = kind;
  schedule.learning_rate = 2.0;
  schedule.final_fraction = 0.1;
  schedule.decay_fraction = 0.2;
  return schedule;
}

TEST(LearningRate, WarmsUpInSteps) {
  ScheduleSpec schedule = spec(LearningRateKind::constant);
  schedule.warmup_steps = 4;
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1, 0), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 4, 0), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 400, 0.9), 2.0);
}

TEST(LearningRate, StableThenDecays) {
  const ScheduleSpec schedule = spec(LearningRateKind::warmup_stable_decay);
  EXPECT_DOUBLE_EQ(learning_rate(schedule, 1, 0.8), 2.0);
  EXPECT_NEAR(learning_rate(schedule, 1, 0.85), 2.0 * (1 - 0.9 * 0.5), 1e-12);  // a quarter through: sqrt is a half
  EXPECT_NEAR(learning_rate(schedule, 1, 1.0), 0.2, 1e-12);
}

TEST(LearningRate, Cosine) {
  const ScheduleSpec schedule = spec(LearningRateKind::cosine);
  EXPECT_NEAR(learning_rate(schedule, 1, 0), 2.0, 1e-12);
  EXPECT_NEAR(learning_rate(schedule, 1, 0.5), 1.1, 1e-12);
  EXPECT_NEAR(learning_rate(schedule, 1, 1), 0.2, 1e-12);
}

// DeepSeek-V3, section 4.2: 2.2e-4 to 10T tokens, 2.2e-5 after 14.3T, 7.3e-6 for the last 167B.
TEST(LearningRate, DeepSeekV3) {
  ScheduleSpec schedule = spec(LearningRateKind::deepseek);
  schedule.learning_rate = 2.2e-4;
  EXPECT_NEAR(learning_rate(schedule, 1, 9.9 / 14.8), 2.2e-4, 1e-12);
  EXPECT_NEAR(learning_rate(schedule, 1, 12.15 / 14.8), 1.21e-4, 1e-9);
  EXPECT_NEAR(learning_rate(schedule, 1, 14.5 / 14.8), 2.2e-5, 1e-12);
  EXPECT_NEAR(learning_rate(schedule, 1, 14.7 / 14.8), 7.3e-6, 1e-12);
}

TEST(LearningRate, NeverRisesAfterWarmup) {
  for (const LearningRateKind kind : {LearningRateKind::warmup_stable_decay, LearningRateKind::cosine,
                                      LearningRateKind::deepseek, LearningRateKind::constant}) {
    double before = 10;
    for (int i = 0; i <= 1000; ++i) {
      const double rate = learning_rate(spec(kind), 1, i / 1000.0);
      EXPECT_LE(rate, before + 1e-12);
      before = rate;
    }
  }
}

TEST(LearningRate, TheStableShareIsWhereTheRateIsAtItsPeak) {
  for (const LearningRateKind kind : {LearningRateKind::warmup_stable_decay, LearningRateKind::deepseek}) {
    const double stable = stable_share(spec(kind));
    EXPECT_EQ(learning_rate(spec(kind), 1, stable - 1e-9), 2.0);
    EXPECT_LT(learning_rate(spec(kind), 1, stable + 0.01), 2.0);
  }
  EXPECT_EQ(stable_share(spec(LearningRateKind::constant)), 1);
  EXPECT_EQ(stable_share(spec(LearningRateKind::cosine)), 1) << "falls from the beginning on";
  ScheduleSpec schedule = spec(LearningRateKind::warmup_stable_decay);
  schedule.decay_fraction = 1;
  EXPECT_EQ(stable_share(schedule), 1) << "falls from the beginning on";
}

}  // namespace
}  // namespace shoestring
