#include "kernels/base/copy.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

TEST(Copy, AnyStridesOnTheCpu) {
  Workers workers(1);
  Stream stream(workers);
  const Tensor from = testing::normal(DType::f32, {5, 7, 3}, 1);
  testing::Fenced to(DType::f32, {5, 7, 3}, 2);
  copy(to, from, stream);
  EXPECT_TRUE(testing::same_bits(to, from));
  EXPECT_TRUE(to.intact());

  const Tensor matrix = testing::normal(DType::bf16, {6, 9}, 2);
  testing::Fenced turned(DType::bf16, {9, 6}, 1);
  copy(turned, matrix.view().transposed(), stream);
  EXPECT_TRUE(testing::same_bits(turned, matrix.view().transposed()));
  EXPECT_TRUE(turned.intact());
}

TEST(Copy, EmptyAndScalar) {
  Workers workers(1);
  Stream stream(workers);
  copy(Tensor(DType::f32, {0, 4}), Tensor(DType::f32, {0, 4}), stream);
  Tensor from(DType::i64, {});
  Tensor to(DType::i64, {});
  from.as<std::int64_t>()[0] = 42;
  copy(to, from, stream);
  EXPECT_EQ(to.as<std::int64_t>()[0], 42);
}

TEST(Copy, RefusesOtherShapesAndFormats) {
  Workers workers(1);
  Stream stream(workers);
  Tensor a(DType::f32, {2, 3});
  EXPECT_THROW(copy(a, Tensor(DType::f32, {3, 2}), stream), Error);
  EXPECT_THROW(copy(a, Tensor(DType::bf16, {2, 3}), stream), Error);
  TensorView elsewhere = a;
  elsewhere.device = {DeviceKind::cuda, 0};
  EXPECT_THROW(copy(elsewhere, Tensor(DType::f32, {2, 3}), stream), Error);
}

TEST(Copy, ThereAndBackThroughADevice) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a CUDA device";
  const Device device{DeviceKind::cuda, 0};
  Stream stream(device);
  const Tensor from = testing::normal(DType::f32, {6, 10}, 3);
  Tensor on_device(DType::f32, {6, 10}, device);
  testing::Fenced back(DType::f32, {6, 10}, 3);
  copy(on_device, from, stream);
  copy(back, on_device, stream);
  stream.synchronize();
  EXPECT_TRUE(testing::same_bits(back, from));
  EXPECT_TRUE(back.intact());
}

}  // namespace
}  // namespace shoestring
