#include "core/training/spread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace shoestring {
namespace {

TEST(Spread, HasEachOnceAndAnyBeginningEverywhere) {
  const std::vector<std::int64_t> counts = {40, 0, 20, 1};
  const std::vector<SpreadPlace> order = spread_evenly(counts);
  std::set<std::pair<std::size_t, std::int64_t>> all;
  for (const SpreadPlace& at : order) all.emplace(at.part, at.number);
  EXPECT_EQ(order.size(), 61u);
  EXPECT_EQ(all.size(), 61u);
  // Of the first 15 two thirds are of the first part, and in each quarter of it a quarter of them, give or take one.
  std::vector<int> of_part(4), of_quarter(4);
  for (const SpreadPlace& at : std::vector(order.begin(), order.begin() + 15)) {
    ++of_part[at.part];
    if (at.part == 0) ++of_quarter[static_cast<std::size_t>(at.number / 10)];
  }
  EXPECT_NEAR(of_part[0], 10, 1);
  EXPECT_NEAR(of_part[2], 5, 1);
  for (const int quarter : of_quarter) EXPECT_NEAR(quarter, 2.5, 1);
}

}  // namespace
}  // namespace shoestring
