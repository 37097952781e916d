#include "data/fill_in_middle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

constexpr FillInMiddle kIds{0.1, 900, 901, 902};

TEST(FillInMiddle, IsThePublishedArrangement) {
  const std::vector<std::int32_t> document{10, 11, 12, 13, 14, 15, 1};
  std::vector<std::int32_t> out(document.size() + 3);
  fill_in_middle(document.data(), 7, {2, 4}, kIds, out.data());
  EXPECT_EQ(out, (std::vector<std::int32_t>{900, 10, 11, 901, 14, 15, 902, 12, 13, 1}));
  fill_in_middle(document.data(), 7, {0, 6}, kIds, out.data());
  EXPECT_EQ(out, (std::vector<std::int32_t>{900, 901, 902, 10, 11, 12, 13, 14, 15, 1}));
  fill_in_middle(document.data(), 7, {3, 3}, kIds, out.data());
  EXPECT_EQ(out, (std::vector<std::int32_t>{900, 10, 11, 12, 901, 13, 14, 15, 902, 1}));
}

TEST(FillInMiddle, CutsAreUniformAndNeverPastTheEnd) {
  const Random random(4, Purpose::fill_in_middle);
  for (const std::uint32_t length : {1u, 2u, 10u}) {
    std::vector<int> hits(length, 0);
    constexpr int kDraws = 20000;
    for (std::uint64_t index = 0; index < kDraws; ++index) {
      const MiddleSpan span = choose_middle(length, random, index);
      ASSERT_LE(span.begin, span.end);
      ASSERT_LT(span.end, length);
      hits[span.begin] += 1;
      hits[span.end] += 1;
    }
    for (const int hit : hits) EXPECT_NEAR(hit, 2.0 * kDraws / length, 6 * std::sqrt(2.0 * kDraws / length));
  }
}

TEST(FillInMiddle, RefusesSpansThatTakeTheEnd) {
  const std::vector<std::int32_t> document{10, 11, 1};
  std::vector<std::int32_t> out(6);
  const auto with = [&](MiddleSpan span) {
    return testing::error_of([&] { fill_in_middle(document.data(), 3, span, kIds, out.data()); }).code();
  };
  EXPECT_EQ(with({1, 3}), ExitCode::bug);
  EXPECT_EQ(with({2, 1}), ExitCode::bug);
}

}  // namespace
}  // namespace shoestring
