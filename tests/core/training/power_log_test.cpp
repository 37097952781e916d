#include "core/training/power_log.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(PowerLog, SumsReadingsUp) {
  DeviceReading next{.joules = 1000, .watts = 300, .clock_mhz = 1980, .slowed_by = 0};
  int looks = 0;
  PowerLog log([&] {
    ++looks;
    return next;
  });
  EXPECT_EQ(log.text(), "");
  log.look(5);
  log.look(5.5);  // too soon
  EXPECT_EQ(looks, 1);
  EXPECT_EQ(log.text(), "") << "of one reading nothing follows";
  next = {.joules = 37000, .watts = 420, .clock_mhz = 1410, .slowed_by = 0x4};
  log.look(105);
  EXPECT_EQ(log.text(),
            "measured by the device (NVML): 0.01 kWh in 100 s, 360 W in the mean; multiprocessors at 1695 MHz in the "
            "mean, 1410 to 1980; slowed down in 50% of 2 readings (power cap 50%)");
}

// A device before Volta counts no energy: power now and then is no sum.
TEST(PowerLog, WithoutACounterItTellsPower) {
  PowerLog log([] { return DeviceReading{.joules = {}, .watts = 250, .clock_mhz = {}, .slowed_by = 0}; });
  log.look(0);
  log.look(2);
  EXPECT_EQ(log.text(), "measured by the device (NVML): 250 W in the mean of 2 readings");
}

TEST(PowerLog, OfADeviceThatTellsNothingNothingIsSaid) {
  PowerLog log([] { return DeviceReading{}; });
  log.look(0);
  log.look(2);
  EXPECT_EQ(log.text(), "");
}

}  // namespace
}  // namespace shoestring
