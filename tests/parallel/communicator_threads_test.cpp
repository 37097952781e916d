#include "parallel/communicator_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "tests/parallel/communicator_conformance.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

class ThreadConformance : public ::testing::TestWithParam<int> {};

TEST_P(ThreadConformance, EveryCase) {
  for (const testing::ConformanceCase& conformance : testing::conformance_cases()) {
    SCOPED_TRACE(conformance.name);
    testing::run_ranks(GetParam(), conformance.run);
  }
}
INSTANTIATE_TEST_SUITE_P(Ranks, ThreadConformance, ::testing::Values(1, 2, 3, 4, 8));

TEST(ThreadWorld, OneFailureEndsAllRanks) {
  std::atomic<int> ended = 0;
  const auto body = [&](Communicator& world) {
    if (world.rank() == 2) fail(ExitCode::non_finite, "loss is not finite");
    try {
      world.barrier();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("loss is not finite"), std::string::npos);
      ++ended;
      throw;
    }
  };
  EXPECT_THROW(testing::run_ranks(4, body), Error);
  EXPECT_EQ(ended, 3);
}

// The rank that aborts leaves the split first, perhaps: then the others learn of it in there.
TEST(ThreadWorld, AbortCarriesTheCodeIntoSplits) {
  testing::run_ranks(3, [](Communicator& world) {
    std::vector<float> values(4);
    try {
      const auto child = world.split(0, world.rank());
      if (world.rank() == 1) return child->abort(ExitCode::no_progress, "stuck");
      child->recv(view_of(values.data(), DType::f32, {4}), 1);
      ADD_FAILURE() << "received from a rank that aborted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::no_progress);
    }
  });
}

TEST(SelfCommunicator, IsAWorldOfOne) {
  const auto self = self_communicator();
  EXPECT_EQ(self->size(), 1);
  for (const testing::ConformanceCase& conformance : testing::conformance_cases()) {
    SCOPED_TRACE(conformance.name);
    conformance.run(*self);
  }
}

TEST(JoinWorld, PlainStartIsAWorldOfOne) { EXPECT_EQ(join_world()->size(), 1); }

}  // namespace
}  // namespace shoestring
