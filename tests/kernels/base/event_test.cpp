#include "kernels/base/event.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/tensor.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

TEST(Event, TimesACpuStream) {
  Workers workers(1);
  const Stream stream(workers);
  Event before(Device{});
  Event after(Device{});
  before.record(stream);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  after.record(stream);
  after.synchronize();
  EXPECT_GE(before.seconds_until(after), 0.019);
  EXPECT_LT(before.seconds_until(after), 10.0);
  before.block(stream);
  const Event moved = std::move(after);
  EXPECT_GE(before.seconds_until(moved), 0.019);
}

TEST(Event, IsReachedAtOnceOnACpu) {
  Workers workers(1);
  const Stream stream(workers);
  Event event(Device{});
  EXPECT_TRUE(event.reached());
  event.record(stream);
  EXPECT_TRUE(event.reached());
}

TEST(Event, IsReachedAfterTheWorkOfADevice) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "this process sees no CUDA device";
  const Device device{DeviceKind::cuda, 0};
  Stream stream(device);
  Event event(device);
  EXPECT_TRUE(event.reached());
  Tensor from(DType::u8, {std::int64_t{1} << 28}, device);
  Tensor to(DType::u8, {std::int64_t{1} << 28}, device);
  for (int i = 0; i < 100; ++i) copy(to, from, stream);  // some milliseconds on any device
  event.record(stream);
  EXPECT_FALSE(event.reached());
  event.record(stream);  // throws if asking had left an error behind
  event.synchronize();
  EXPECT_TRUE(event.reached());
}

TEST(Event, BelongsToOneDevice) {
  if (cuda_device_count() == 0) {
    EXPECT_THROW(Event(Device{DeviceKind::cuda, 0}), Error);
    return;
  }
  Workers workers(1);
  Event event(Device{DeviceKind::cuda, 0});
  EXPECT_THROW(event.record(Stream(workers)), Error);
}

}  // namespace
}  // namespace shoestring
