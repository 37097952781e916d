// A request to leave that comes before anything is known of the run: at the first call that opens a file of its place,
// its recipe (tools/campaign/faults.cpp), and at two of those that follow.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/budget/ledger_history.h"
#include "tests/tools/program.h"

namespace shoestring {
namespace {

using testing::Ended;
using testing::read_text;
using testing::Workplace;

class EarlySignal : public ::testing::TestWithParam<int> {};

TEST_P(EarlySignal, ARunIsLeftAndTheSameCommandBeginsIt) {
  const Workplace place;
  const std::string train = place.train("early", "--phase.pretrain.steps=5");
  const std::string asked = fmt::format(
      "env LD_PRELOAD='{}' SHOESTRING_FAULT=open:{}:asked SHOESTRING_FAULT_UNDER='{}' SHOESTRING_FAULT_MARK='{}'",
      SHOESTRING_FAULTS, GetParam(), place.path().string(), (place.path() / "mark").string());
  const Ended left = place.run(train, asked);
  ASSERT_EQ(read_text(place.path() / "mark"), "came\n") << left.output;
  EXPECT_EQ(left.exit_code, 75) << left.output;
  EXPECT_NE(left.output.find("left as asked before a step was taken; the same command begins"), std::string::npos)
      << left.output;
  const LedgerHistory history = read_ledger(place.run_folder("early"));
  ASSERT_EQ(history.attempts.size(), 1u) << "its time is charged";
  EXPECT_EQ(history.attempts[0].reason, "preempted");
  const Ended begun = place.run(train);
  EXPECT_EQ(begun.exit_code, 0) << begun.output;
  EXPECT_EQ(place.result("early").at("checkpoint"), "step_00000005");
}

INSTANTIATE_TEST_SUITE_P(Calls, EarlySignal, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace shoestring
