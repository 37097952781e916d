#include "core/training/work_progress.h"

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

TEST(WorkProgress, OfWhatIsNotMeasuredOnlyMoreIsShown) {
  EXPECT_EQ(to_string({"training a tokenizer", 0, 0, "since 12 s"}, 0, 12), "training a tokenizer: since 12 s");
}

TEST(WorkPace, SaysNothingOfWhatMayBeOverSoon) {
  WorkPace pace;
  EXPECT_EQ(pace.text({"reading weights", 0, 400}, 10), "");
  EXPECT_EQ(pace.text({"reading weights", 100, 400}, 10.9), "");
  EXPECT_EQ(pace.text({"reading weights", 200, 400}, 12), "reading weights: 50 %, 200 B of 400 B, 100 B/s, 2 s left");
  EXPECT_EQ(pace.text({"taking the hash", 200, 400}, 12.1), "") << "another piece of work";
  EXPECT_EQ(pace.text({"taking the hash", 300, 400}, 13.1), "taking the hash: 75 %, 300 B of 400 B, 100 B/s, 1 s left");
}

}  // namespace
}  // namespace shoestring
