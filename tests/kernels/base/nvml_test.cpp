#include "kernels/base/nvml.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

constexpr const char* kFake = SHOESTRING_FAKE_NVML;  // fake_nvml.cpp
constexpr const char* kFirst = "00000000:01:00.0";

TEST(Nvml, ReadsWhatTheDeviceTells) {
  const DeviceMonitor monitor(kFirst, kFake);
  ASSERT_EQ(monitor.fault(), "");
  const DeviceReading first = monitor.read();
  const DeviceReading second = monitor.read();
  ASSERT_TRUE(first.joules && second.joules && second.watts && second.clock_mhz);
  EXPECT_DOUBLE_EQ(*second.joules - *first.joules, 250);
  EXPECT_DOUBLE_EQ(*second.watts, 401.5);
  EXPECT_EQ(*second.clock_mhz, 1740);
  EXPECT_EQ(slowing_reasons(second.slowed_by), std::vector<std::string_view>{"power cap"}) << "idle is no reason";
}

TEST(Nvml, ADeviceItDoesNotKnowIsAFault) {
  const DeviceMonitor monitor("00000000:02:00.0", kFake);
  EXPECT_NE(monitor.fault().find("device 00000000:02:00.0: Not Found"), std::string::npos) << monitor.fault();
  EXPECT_FALSE(monitor.read().joules);
}

TEST(Nvml, WithoutTheLibraryNothingIsMeasured) {
  const DeviceMonitor absent(kFirst, "libof_nothing.so.1");
  EXPECT_EQ(absent.fault(), "libof_nothing.so.1 cannot be loaded");
  EXPECT_FALSE(absent.read().watts);
  const DeviceMonitor another(kFirst, "libm.so.6");
  EXPECT_EQ(another.fault(), "libm.so.6 lacks functions of NVML");
}

TEST(Nvml, ReasonsHaveWords) {
  EXPECT_TRUE(slowing_reasons(0x1 | 0x2 | 0x100).empty()) << "idle, as set, and for a display";
  EXPECT_EQ(slowing_reasons(0x60), (std::vector<std::string_view>{"heat", "heat, by the hardware"}));
}

}  // namespace
}  // namespace shoestring
