#include "core/budget/price.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

TEST(Price, PublishedRunsCostWhatTheirAuthorsSay) {
  const Price h800{2, "DeepSeek-V3 technical report", "2024-12-27"};
  EXPECT_DOUBLE_EQ(h800.usd(2.788e6), 5.576e6);
  EXPECT_NEAR(h800.usd(147e3), 294e3, 1);  // R1: 147K H800-hours (Nature 2025)
  const Price h100{3, "assumed", "2025-01-01"};
  EXPECT_NEAR(h100.usd(8 * 19.0), 450, 6.1);  // Sky-T1: 152 hours, "under $450" at about $3
  EXPECT_EQ(8 * 19, 152);
}

TEST(Price, ThereIsNoDefault) { EXPECT_FALSE(price_of(BudgetSpec{}).has_value()); }

TEST(Cap, IsTheLeastOfWhatIsGiven) {
  BudgetSpec budget;
  Hardware hardware;
  hardware.watts = 700;
  EXPECT_TRUE(std::isinf(cap_of(budget, hardware).gpu_hours));
  budget.gpu_hours = 10;
  EXPECT_EQ(cap_of(budget, hardware).from, "budget.gpu_hours");
  budget.usd = 10;
  budget.usd_per_gpu_hour = 2;
  EXPECT_EQ(cap_of(budget, hardware).gpu_hours, 5);
  EXPECT_EQ(cap_of(budget, hardware).from, "budget.usd");
  budget.kwh = 1.4;
  EXPECT_DOUBLE_EQ(cap_of(budget, hardware).gpu_hours, 2);
  EXPECT_EQ(cap_of(budget, hardware).from, "budget.kwh");
  EXPECT_TRUE(std::isinf(cap_of(budget, hardware).job_hours));
  EXPECT_DOUBLE_EQ(kwh(hardware, 2), 1.4);
}

// A run that went on at another price may still spend only what is left of the money.
TEST(Cap, WhatEarlierAttemptsSpentCountsAtTheirPriceAndPower) {
  BudgetSpec budget;
  budget.usd = 10;
  budget.usd_per_gpu_hour = 4;
  Hardware hardware;
  hardware.watts = 500;
  const Spent before = {.gpu_hours = 3, .usd = 6, .kwh = 3};
  EXPECT_DOUBLE_EQ(cap_of(budget, hardware, before).gpu_hours, 4);  // 3 for $6, 1 more for $4
  budget.kwh = 3.25;
  EXPECT_DOUBLE_EQ(cap_of(budget, hardware, before).gpu_hours, 3.5);
  EXPECT_EQ(cap_of(budget, hardware, before).from, "budget.kwh");
  budget.gpu_hours = 3.25;
  EXPECT_DOUBLE_EQ(cap_of(budget, hardware, before).gpu_hours, 3.25);
}

TEST(Cap, EnergyNeedsAKnownPower) {
  BudgetSpec budget;
  budget.kwh = 1;
  EXPECT_THROW(cap_of(budget, Hardware{}), Error);
}

}  // namespace
}  // namespace shoestring
