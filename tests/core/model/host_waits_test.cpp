#include "core/model/host_waits.h"

#include <gtest/gtest.h>

#include "kernels/base/workers.h"

namespace shoestring {
namespace {

TEST(HostWaits, AreToldByCauseForEachStep) {
  HostWaits waits;
  EXPECT_EQ(waits_text(waits, 3), "");
  waits[WaitCause::verdict] = 3;
  EXPECT_EQ(waits_text(waits, 3), "1 a step for losses and the gradient's norm");
  HostWaits more;
  more[WaitCause::expert_rows] = 48;
  more[WaitCause::host_state] = 1;
  waits += more;
  EXPECT_EQ(
      waits_text(waits, 3),
      "1 a step for losses and the gradient's norm, 16 for the rows of experts, 0.3333 for optimizer state in the "
      "host's memory");
}

// A CPU is done when a call returns.
TEST(HostWaits, ACpuIsNotWaitedFor) {
  Workers workers(1);
  Stream stream(workers);
  HostWaits waits;
  wait_for(stream, WaitCause::verdict, &waits);
  wait_for(stream, WaitCause::verdict, nullptr);
  EXPECT_EQ(waits[WaitCause::verdict], 0);
}

}  // namespace
}  // namespace shoestring
