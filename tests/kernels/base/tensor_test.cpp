#include "kernels/base/tensor.h"

#include <gtest/gtest.h>

#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

TEST(Shape, CountsAndPrints) {
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{2, 3, 4}).elements(), 24);
  EXPECT_EQ((Shape{2, 0}).elements(), 0);
  EXPECT_EQ((Shape{2, 3}).to_string(), "[2, 3]");
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Strides{12, 4, 1}));
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
}

TEST(TensorView, SlicesAndTransposes) {
  Tensor matrix(DType::f32, {3, 4});
  for (int i = 0; i < 12; ++i) matrix.as<float>()[i] = static_cast<float>(i);
  const TensorView part = matrix.view().slice(1, 1, 2);
  EXPECT_EQ(part.shape, (Shape{3, 2}));
  EXPECT_FALSE(part.contiguous());
  EXPECT_EQ(part.as<float>()[part.strides[0] * 2], 9.0f);
  EXPECT_TRUE(matrix.view().slice(0, 1, 2).contiguous());
  const TensorView turned = part.transposed();
  EXPECT_EQ(turned.shape, (Shape{2, 3}));
  EXPECT_EQ(turned.as<float>()[turned.strides[0] + 2 * turned.strides[1]], 10.0f);
  EXPECT_EQ(turned.to_string(), "f32 [2, 3]");
  EXPECT_EQ(matrix.view().slice(0, 3, 0).elements(), 0);
  EXPECT_THROW(matrix.view().slice(0, 2, 2), Error);
  EXPECT_THROW(matrix.view().slice(2, 0, 1), Error);
  EXPECT_THROW(Tensor(DType::f32, {2, 2, 2}).view().transposed(), Error);
}

TEST(TensorView, ReshapesWhatIsContiguous) {
  Tensor tensor(DType::bf16, {6, 4});
  EXPECT_EQ(tensor.view().reshaped({2, 3, 4}).strides, (Strides{12, 4, 1}));
  EXPECT_THROW(tensor.view().reshaped({5, 5}), Error);
  EXPECT_THROW(tensor.view().slice(1, 0, 2).reshaped({12}), Error);
}

TEST(Tensor, OwnsZeroedMemoryAndMoves) {
  Tensor tensor(DType::i32, {5});
  EXPECT_EQ(tensor.bytes(), 20);
  EXPECT_EQ(tensor.as<std::int32_t>()[4], 0);
  void* data = tensor.view().data;
  const Tensor moved = std::move(tensor);
  EXPECT_EQ(moved.view().data, data);
  EXPECT_TRUE(Tensor().empty());
}

TEST(ScaledView, ShapesOfScalesAndTranspose) {
  EXPECT_EQ(scales_shape(130, 257, kRowTile128), (Shape{130, 3}));
  EXPECT_EQ(scales_shape(130, 257, kColumnTile128), (Shape{2, 257}));
  EXPECT_EQ(scales_shape(130, 257, kBlock128), (Shape{2, 3}));
  EXPECT_EQ(scales_shape(130, 257, kPerTensor), (Shape{1, 1}));
  EXPECT_EQ(scales_shape(130, 257, kRowTile32), (Shape{130, 9}));
  Tensor values(DType::e4m3, {130, 257});
  Tensor scales(DType::f32, {130, 3});
  const ScaledView view{values, scales, kRowTile128};
  const ConstScaledView turned = view.transposed();
  EXPECT_EQ(turned.values.shape, (Shape{257, 130}));
  EXPECT_EQ(turned.scales.shape, (Shape{3, 130}));
  EXPECT_EQ(turned.granularity, kColumnTile128);
  EXPECT_TRUE(turned.scaled());
  EXPECT_FALSE(unscaled(values).scaled());
  EXPECT_FALSE(unscaled(values).transposed().scaled());
}

}  // namespace
}  // namespace shoestring
