#include "tools/bench/rows_beside.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace shoestring {
namespace {

struct NoArgs {};

void wait_a_little(const NoArgs&) { std::this_thread::sleep_for(std::chrono::microseconds(200)); }
void never_run(const NoArgs&) { FAIL() << "a row that cannot run here was timed"; }
std::string odd_sizes(const NoArgs&) { return "odd sizes"; }

constexpr Variant<NoArgs> kRows[] = {
    {"cuda", never_refuses<NoArgs>, never_run},
    {"simd", odd_sizes, never_run},
    {"portable", never_refuses<NoArgs>, wait_a_little},
    {"reference", never_refuses<NoArgs>, wait_a_little},
};

// Rows are told from the last to the first, each over the one behind it that runs; a device's are not.
TEST(RowsBeside, OneIsTimedAndTheOthersSayWhyNot) {
  Workers workers(1);
  const BenchEffort effort{.repetitions = 1, .most_seconds = 0.01, .rivals = {}};
  std::vector<BenchRow> told;
  const BenchReport report = [&](const BenchRow& row) { told.push_back(row); };
  RowsBeside(workers, effort, report).time("an op", 1e9, "Gelem/s", std::span<const Variant<NoArgs>>(kRows), NoArgs{});
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].name, "an op: portable");
  EXPECT_EQ(told[0].over, "reference");
  EXPECT_EQ(told[0].goal, 0);
  EXPECT_TRUE(told[0].lacking.empty());
  EXPECT_GE(told[0].kept + told[0].dropped, 1);
  EXPECT_EQ(told[1].name, "an op: simd");
  EXPECT_EQ(told[1].over, "portable");
  EXPECT_FALSE(told[1].lacking.empty());
}

}  // namespace
}  // namespace shoestring
