#include "core/budget/untold.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

/// One attempt that ended at `step`, charged `gpu_hours`.
LedgerHistory ledger(std::int64_t step, double gpu_hours) {
  LedgerHistory history;
  AttemptHistory& attempt = history.attempts.emplace_back();
  attempt.state = AttemptState::ended;
  attempt.points.emplace_back().step = step;
  attempt.charged[Category::compute] = gpu_hours * 3600;
  return history;
}

Curve metrics(std::int64_t step, double gpu_hours) {
  Curve curve;
  for (const int part : {2, 1}) {
    CurvePoint& point = curve.points.emplace_back();
    point.step = step / part;
    point.gpu_hours = gpu_hours / part;
  }
  return curve;
}

TEST(UntoldBill, IsNoneWhereTheFilesAgree) {
  EXPECT_EQ(untold_bill({}, {}), "");
  EXPECT_EQ(untold_bill(ledger(40, 2), {}, 40), "");
  EXPECT_EQ(untold_bill(ledger(40, 2), metrics(40, 2 * 1.009), 40), "");
  EXPECT_EQ(untold_bill(ledger(40, 2), metrics(20, 1), 20), "") << "what was lost is charged";
  EXPECT_EQ(untold_bill(ledger(40, 2), metrics(44, 2), 44), "") << "the next line of the ledger was not due yet";
  EXPECT_EQ(untold_bill(ledger(40, 1e-5), metrics(40, 3e-5)), "") << "of a tenth of a second nothing is said";
}

TEST(UntoldBill, IsToldWhereAnOldLedgerWasPutBack) {
  const std::string text = untold_bill(ledger(40, 2), metrics(120, 7), 120);
  for (const char* part : {"2 GPU-hours", "of 7 up to step 120", "put the newer ledger back"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_NE(untold_bill({}, metrics(120, 7)), "");
}

TEST(UntoldBill, IsToldOfACheckpointThatNothingTellsOf) {
  const std::string text = untold_bill(ledger(40, 2), metrics(50, 2), 120);
  for (const char* part : {"is of step 120", "end at step 50", "another run"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(untold_bill(ledger(40, 2), metrics(50, 2)), "") << "no checkpoint was looked at";
}

TEST(UntoldBill, IsNotAskedForOfARunUnderWay) {
  LedgerHistory history = ledger(40, 2);
  history.attempts.back().state = AttemptState::running;
  EXPECT_EQ(untold_bill(history, metrics(60, 3)), "");
}

}  // namespace
}  // namespace shoestring
