// Each detector of the emulator against a kernel broken on purpose, and against its right twin.
#include "tests/emulator/broken_kernels.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/base/copy.h"
#include "kernels/base/tensor.h"
#include "kernels/base/workers.h"
#include "tests/emulator/grid.h"
#include "tests/emulator/sanitizers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

using broken::Fault;
using emulator::Order;

constexpr int kBlocks = 3;
constexpr int kElements = 64 * kBlocks;

class Emulator : public ::testing::Test {
 protected:
  ~Emulator() override { emulator::settings() = {}; }

  /// What the kernel leaves in y under an order and a fill pattern.
  Tensor result(Fault fault, Order order, std::uint8_t fill = 0xFF) {
    emulator::settings() = {.order = order, .fill = fill, .stop_at_race = true};
    emulator::clear_history();
    Tensor x(DType::f32, {kElements}, stream_.device()), y(DType::f32, {kElements}, stream_.device());
    copy(x, x_, stream_);
    broken::run(fault, x.as<float>(), y.as<float>(), kBlocks, stream_);
    Tensor back(DType::f32, {kElements});
    copy(back, y, stream_);
    stream_.synchronize();
    return back;
  }
  bool depends_on_order(Fault fault) {
    const Tensor up = result(fault, Order::up);
    return !testing::same_bits(result(fault, Order::down), up) ||
           !testing::same_bits(result(fault, Order::scrambled), up);
  }
  std::string message(Fault fault) {
    try {
      result(fault, Order::up);
    } catch (const emulator::Fault& what) {
      return what.what();
    }
    return "none";
  }

  Stream stream_{Device{DeviceKind::cuda, 0}};
  const Tensor x_ = testing::normal(DType::f32, {kElements}, 1);
};

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_F(Emulator, RunsARightKernelAlikeInEveryOrder) {
  EXPECT_FALSE(depends_on_order(Fault::none));
  const Tensor y = result(Fault::none, Order::scrambled);
  for (int i = 0; i < kElements; ++i) {
    const int next = i / 64 * 64 + (i + 1) % 64;
    ASSERT_EQ(y.as<float>()[i], x_.as<float>()[next]) << i;
  }
  EXPECT_EQ(emulator::races_seen(), 0);
}

TEST_F(Emulator, FindsAMissingBarrierByTheOrderOfThreads) {
  if (emulator::kWatchesRaces) GTEST_SKIP() << "races, of which ThreadSanitizer would print hundreds";
  EXPECT_TRUE(depends_on_order(Fault::missing_barrier));
  EXPECT_TRUE(depends_on_order(Fault::missing_warp_barrier));
  EXPECT_TRUE(depends_on_order(Fault::order_of_blocks));
}

TEST_F(Emulator, FindsAMissingBarrierAsARace) {
  if (!emulator::kWatchesRaces) GTEST_SKIP() << "only the binary under ThreadSanitizer sees races";
  for (const Fault fault : {Fault::missing_barrier, Fault::missing_warp_barrier}) {
    result(fault, Order::up);
    EXPECT_GT(emulator::races_seen(), 0) << static_cast<int>(fault);
  }
}

TEST_F(Emulator, SkipsABarrierThatATestNames) {
  result(Fault::none, Order::up);
  const std::vector<std::string> barriers = emulator::barriers_seen();
  ASSERT_EQ(barriers.size(), 1u);
  EXPECT_TRUE(contains(barriers[0], "broken_kernels.cu:"));
  const Tensor right = result(Fault::none, Order::up);
  emulator::settings().skipped_barrier = barriers[0];
  Tensor x(DType::f32, {kElements}, stream_.device()), y(DType::f32, {kElements}, stream_.device());
  copy(x, x_, stream_);
  broken::run(Fault::none, x.as<float>(), y.as<float>(), kBlocks, stream_);
  Tensor back(DType::f32, {kElements});
  copy(back, y, stream_);
  EXPECT_FALSE(testing::same_bits(back, right));
}

TEST_F(Emulator, FindsUninitialisedSharedMemoryByTwoFills) {
  EXPECT_TRUE(testing::same_bits(result(Fault::none, Order::up, 0xFF), result(Fault::none, Order::up, 0x00)));
  EXPECT_FALSE(
      testing::same_bits(result(Fault::uninitialised, Order::up, 0x3F), result(Fault::uninitialised, Order::up, 0)));
}

TEST_F(Emulator, SaysWhoWaitsWhere) {
  const std::string absent = message(Fault::absent_at_barrier);
  EXPECT_TRUE(contains(absent, "63 threads wait for __syncthreads at broken_kernels.cu:")) << absent;
  EXPECT_TRUE(contains(absent, "1 threads have ended")) << absent;
  const std::string divergent = message(Fault::divergent_barrier);
  EXPECT_TRUE(contains(divergent, "different places")) << divergent;
  const std::string collective = message(Fault::divergent_collective);
  EXPECT_TRUE(contains(collective, "names a lane that has ended or never was (16)")) << collective;
  EXPECT_TRUE(contains(message(Fault::mask_leaves_out), "leaves it out"));
}

TEST_F(Emulator, GoesOnAfterAFault) {
  EXPECT_NE(message(Fault::divergent_collective), "none");
  EXPECT_FALSE(depends_on_order(Fault::none));
}

TEST_F(Emulator, FencesMemory) {
  if (!emulator::kFencesMemory) GTEST_SKIP() << "only the binary under AddressSanitizer has fences";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(result(Fault::past_global, Order::up), "use-after-poison");
  EXPECT_DEATH(result(Fault::past_shared, Order::up), "global-buffer-overflow|out of bounds");
  EXPECT_DEATH(result(Fault::past_dynamic, Order::up), "use-after-poison");
  EXPECT_DEATH(result(Fault::misaligned, Order::up), "misaligned address");
}

TEST_F(Emulator, RefusesWhatNoDeviceLaunches) {
  Tensor y(DType::f32, {64}, stream_.device());
  broken::run(Fault::none, y.as<float>(), y.as<float>(), 0, stream_);
  EXPECT_THROW(stream_.synchronize(), emulator::Fault);  // late, as all that a stream does
}

}  // namespace
}  // namespace shoestring
