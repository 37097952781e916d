#include "core/budget/meter.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "tests/core/budget/hand_clock.h"

namespace shoestring {
namespace {

using testing::HandClock;

TEST(Meter, CountsFromTheStartOfTheProcess) {
  HandClock clock;
  const Meter meter(clock);
  clock.now += 3;
  EXPECT_EQ(meter.read()[Category::startup], 5);
  EXPECT_EQ(meter.elapsed_seconds(), 5);
}

TEST(Meter, TheInnermostScopeCounts) {
  HandClock clock;
  Meter meter(clock);
  meter.enter(Category::idle);
  {
    Meter::Scope compute(meter, Category::compute);
    clock.now += 10;
    {
      Meter::Scope wait(meter, Category::data_wait);
      clock.now += 4;
    }
    clock.now += 1;
  }
  clock.now += 0.5;
  const CategorySeconds read = meter.read();
  EXPECT_EQ(read[Category::startup], 2);
  EXPECT_EQ(read[Category::compute], 11);
  EXPECT_EQ(read[Category::data_wait], 4);
  EXPECT_EQ(read[Category::idle], 0.5);
  EXPECT_EQ(read.total(), meter.elapsed_seconds());
}

TEST(Meter, ScopesEndWithExceptions) {
  HandClock clock;
  Meter meter(clock);
  meter.enter(Category::idle);
  try {
    Meter::Scope checkpoint(meter, Category::checkpoint);
    clock.now += 1;
    throw std::runtime_error("disk full");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(meter.category(), Category::idle);
  EXPECT_EQ(meter.read()[Category::checkpoint], 1);
}

TEST(Meter, TellsEachStretch) {
  HandClock clock;
  Meter meter(clock);
  struct Stretch {
    Category category;
    double begin, end;
    bool operator==(const Stretch&) const = default;
  };
  std::vector<Stretch> told;
  meter.tell([&](Category category, double begin, double end) { told.push_back({category, begin, end}); });
  meter.enter(Category::idle);
  clock.now += 1;
  {
    const Meter::Scope waiting(meter, Category::bubble);
    clock.now += 4;
  }
  meter.tell({});
  meter.enter(Category::compute);
  EXPECT_EQ(told, (std::vector<Stretch>{{Category::startup, 0, 2}, {Category::idle, 2, 3}, {Category::bubble, 3, 7}}));
}

TEST(Meter, CategoriesSumToElapsedWhateverHappens) {
  HandClock clock;
  Meter meter(clock);
  unsigned state = 12345;
  for (int i = 0; i < 1000; ++i) {
    state = state * 1664525u + 1013904223u;
    clock.now += 1e-3 * ((state >> 8) % 1000);
    meter.enter(static_cast<Category>((state >> 20) % (kCategories - 1)));
  }
  EXPECT_NEAR(meter.read().total(), meter.elapsed_seconds(), 1e-9 * meter.elapsed_seconds());
}

TEST(Meter, TheSystemClockKnowsTheProcess) {
  const Clock& clock = system_clock();
  const double age = clock.monotonic_seconds() - clock.process_start();
  EXPECT_GE(age, 0);
  EXPECT_LT(age, 300);
  EXPECT_GT(clock.unix_seconds(), 1.6e9);
}

TEST(Meter, WhatIsGivenUpIsLost) {
  HandClock clock;
  Meter meter(clock);
  clock.now += 1;
  meter.enter(Category::compute);
  clock.now += 2;
  const CategorySeconds before = meter.read();
  clock.now += 4;
  {
    const Meter::Scope waiting(meter, Category::data_wait);
    clock.now += 8;
  }
  meter.write_off(before);
  clock.now += 16;
  const CategorySeconds seconds = meter.read();
  EXPECT_DOUBLE_EQ(seconds[Category::lost], 12);
  EXPECT_DOUBLE_EQ(seconds[Category::data_wait], 0);
  EXPECT_DOUBLE_EQ(seconds[Category::compute], 18);
  EXPECT_DOUBLE_EQ(seconds.total(), meter.elapsed_seconds());
}

}  // namespace
}  // namespace shoestring
