#include "tools/work_progress.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(WorkProgress, SaysShareRateAndTimeLeft) {
  const Progress progress{"writing shards", 120'000'000, 280'000'000, "7 tokens"};
  EXPECT_EQ(to_string(progress, 120'000'000, 10),
            "writing shards: 42 %, 120 MB of 280 MB, 12 MB/s, 14 s left, 7 tokens");
  EXPECT_EQ(to_string({"reading", 1500, 0}, 1500, 1), "reading: 1.5 kB, 1.5 kB/s") << "of what is not known";
  EXPECT_EQ(to_string({"reading", 0, 100}, 0, 3), "reading: 0 %, 0 B of 100 B") << "nothing yet";
  EXPECT_EQ(to_string({"reading", 120, 100}, 120, 1), "reading: 100 %, 120 B of 120 B, 120 B/s") << "it grew meanwhile";
  EXPECT_EQ(to_string({"reading", 1, 2'000'000'000'000}, 1'000'000, 1),
            "reading: 0 %, 1 B of 2.00 TB, 1.0 MB/s, 555 h 33 min left");
  EXPECT_EQ(to_string({"answering", 12, 40, "", "requests"}, 12, 8),
            "answering: 30 %, 12 of 40 requests, 1.5/s, 19 s left");
  EXPECT_EQ(to_string({"answering", 3, 0, "", "requests"}, 3, 1), "answering: 3 requests, 3/s");
}

}  // namespace
}  // namespace shoestring
