#include "kernels/base/staging.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

// On a CPU a copy is done when its call returns: one piece serves for ever. On devices: tests/emulator.
TEST(Staging, OnePieceOnACpu) {
  Workers workers(1);
  const Stream stream(workers);
  Staging staging(100, {});
  EXPECT_THROW(staging.sent(stream), Error);
  void* const first = staging.take();
  ASSERT_NE(first, nullptr);
  staging.sent(stream);
  EXPECT_EQ(staging.take(), first);
  staging.sent(stream);
  EXPECT_EQ(staging.pieces(), 1);
}

}  // namespace
}  // namespace shoestring
