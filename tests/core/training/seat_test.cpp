#include "core/training/seat.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/core/budget/hand_clock.h"
#include "tests/support/ranks.h"

namespace shoestring {
namespace {

// Each on a clock of its own: hosts share no monotonic scale.
TEST(Seat, TheHeadStartIsThatOfTheOtherRanks) {
  constexpr std::array<double, 3> kAges = {2, 17, 12};
  testing::run_ranks(3, [&](Communicator& world) {
    testing::HandClock clock;
    clock.now = 1000 * (world.rank() + 1);
    clock.start = clock.now - kAges[static_cast<std::size_t>(world.rank())];
    const HeadStart head_start = head_start_of(world, clock);
    EXPECT_DOUBLE_EQ(head_start.gpu_seconds,
                     (std::array<double, 3>{25, -20, -5}[static_cast<std::size_t>(world.rank())]));
    EXPECT_DOUBLE_EQ(head_start.job_seconds, (std::array<double, 3>{15, 0, 5}[static_cast<std::size_t>(world.rank())]));
  });
}

TEST(Seat, ARankThatIsAloneAsksNoClock) {
  class NoClock final : public Clock {
    double monotonic_seconds() const override { throw std::logic_error("asked"); }
    double unix_seconds() const override { throw std::logic_error("asked"); }
    double process_start() const override { throw std::logic_error("asked"); }
  };
  const std::unique_ptr<Communicator> alone = self_communicator();
  EXPECT_EQ(head_start_of(*alone, NoClock()).gpu_seconds, 0);
}

}  // namespace
}  // namespace shoestring
