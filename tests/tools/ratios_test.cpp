#include "tools/bench/ratios.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Ratios, MedianAndPercentilesAtFullPace) {
  Ratios ratios;
  for (int i = 10; i >= 0; --i) ratios.add(i, 100.0 * i);
  for (int i = 0; i < 3; ++i) ratios.add(0.5 + i, 1, Pace::slow);
  ratios.drop();
  const BenchRow row = ratios.row("name", "over", 4, "unit");
  EXPECT_EQ(row.median, 5);
  EXPECT_EQ(row.p10, 1);
  EXPECT_EQ(row.p90, 9);
  EXPECT_EQ(row.absolute, 500);
  EXPECT_EQ(row.kept, 11);
  EXPECT_EQ(row.dropped, 1);
  EXPECT_EQ(row.slow, 3);
  EXPECT_EQ(row.slow_median, 1.5);
}

// A machine whose loads were slow nearly all the time still has figures, and they say so.
TEST(Ratios, SlowRepetitionsCountWhereHardlyAnyOtherDoes) {
  Ratios ratios;
  for (int i = 0; i < 5; ++i) ratios.add(2, 20, Pace::slow);
  for (int i = 0; i < Ratios::kFew - 1; ++i) ratios.add(9, 90);
  const BenchRow slow = ratios.row("name", "over", 4, "unit");
  EXPECT_EQ(slow.median, 2);
  EXPECT_EQ(slow.absolute, 20);
  EXPECT_EQ(slow.kept, 5);
  EXPECT_EQ(slow.slow, 5);
  ratios.add(9, 90);
  EXPECT_EQ(ratios.row("name", "over", 4, "unit").median, 9);
}

TEST(Ratios, FewAreEnoughAlone) {
  Ratios ratios;
  ratios.add(9, 90);
  EXPECT_EQ(ratios.row("name", "over", 4, "unit").median, 9);
}

TEST(Ratios, NothingMeasured) {
  const BenchRow row = Ratios().row("name", "over", 4, "unit");
  EXPECT_EQ(row.kept, 0);
  EXPECT_EQ(row.median, 0);
}

}  // namespace
}  // namespace shoestring
