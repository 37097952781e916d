// Limits of the system that end a process by a signal: the program is faster, or says what they are.
#include <gtest/gtest.h>

#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::Ended;
using testing::Workplace;

TEST(Limits, ARunIsSavedBeforeItsCpuTimeIsUsedUp) {
  const Workplace place;
  const std::string train = place.train("hours", "--phase.pretrain.steps=1000000");
  const Ended ended = place.run(train, "ulimit -t 4; exec");
  EXPECT_EQ(ended.exit_code, 75) << ended.output;
  EXPECT_NE(ended.output.find("nearly all of its CPU time (`ulimit -t`)"), std::string::npos) << ended.output;
  EXPECT_GT(testing::saved_step(place, "hours"), 0);
}

TEST(Limits, AStackWithoutRoomIsRefusedWithItsLimit) {
  const Workplace place;
  const Ended ended = place.run("help", "ulimit -s 64; exec");
  EXPECT_EQ(ended.exit_code, 74) << ended.output;
  EXPECT_NE(ended.output.find("the system allows 64 KiB, 256 are needed; raise `ulimit -s`"), std::string::npos)
      << ended.output;
  EXPECT_EQ(place.run("help", "ulimit -s 256; exec").exit_code, 0);
}

}  // namespace
}  // namespace shoestring
