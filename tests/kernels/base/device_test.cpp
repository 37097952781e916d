#include "kernels/base/device.h"

#include <gtest/gtest.h>

#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

TEST(Device, Names) {
  EXPECT_EQ(to_string(Device{}), "cpu");
  EXPECT_EQ(to_string(Device{DeviceKind::cuda, 3}), "cuda:3");
}

TEST(Device, CountNeverThrows) { EXPECT_GE(cuda_device_count(), 0); }

TEST(Stream, OnTheCpuCarriesWorkers) {
  Workers workers(1);
  Stream stream(workers);
  EXPECT_EQ(&stream.workers(), &workers);
  EXPECT_EQ(stream.native(), nullptr);
  stream.synchronize();
  Stream moved = std::move(stream);
  EXPECT_EQ(&moved.workers(), &workers);
}

TEST(Stream, OnADeviceThatIsNotThereSaysSo) {
  try {
    Stream stream(Device{DeviceKind::cuda, cuda_device_count()});
    FAIL() << "a stream on a device beyond the last";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find("CUDA devices"), std::string::npos);
  }
}

TEST(Stream, OnADeviceHasNoWorkers) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a CUDA device";
  const Stream stream(Device{DeviceKind::cuda, 0});
  EXPECT_NE(stream.native(), nullptr);
  EXPECT_THROW(stream.workers(), Error);
}

}  // namespace
}  // namespace shoestring
