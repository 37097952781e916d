// A Linear on the emulated device whose operands come in FP8 from what makes them, beside the same one that casts them.
#include "core/model/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/model/layer.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/quantize.h"
#include "tests/core/model/small_models.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

constexpr std::int64_t kRows = 80, kIn = 256, kOut = 384;
constexpr Device kCuda{DeviceKind::cuda, 0};

LinearOptions options_of(std::int64_t experts) {
  PrecisionSpec spec = testing::policy(PrecisionPolicy::fp8_block);
  spec.gradients_e5m2 = true;
  LinearOptions options{.in = kIn, .out = kOut, .experts = experts, .precision = covered_precision(spec)};
  append_slice(options.slices, "w", std::max<std::int64_t>(1, experts) * kOut, kIn);
  return options;
}

class LinearRun {
 public:
  LinearRun(std::int64_t experts, std::vector<std::int64_t> offsets)
      : linear_(options_of(experts)), offsets_(std::move(offsets)), store_({&linear_.weight}, DType::f32, 1, kCuda) {
    scratch_ = Arena::growing(kCuda);
    arena_ = Arena::growing(kCuda);
    copy(linear_.weight.value, testing::normal(DType::f32, linear_.weight.value.shape, 1), stream_);
    linear_.prepare({scratch_, stream_});
  }

  struct Results {
    Tensor y, dx, dw;
  };
  /// `codes`: x and dy are quantised into the room that the Linear gives, and never shown to it.
  Results run(bool codes) {
    const Tensor x = there(testing::heavy_tailed(DType::bf16, {kRows, kIn}, 2));
    const Tensor dy = there(testing::heavy_tailed(DType::bf16, {kRows, kOut}, 3));
    Tensor y(DType::bf16, {kRows, kOut}, kCuda), dx(DType::bf16, {kRows, kIn}, kCuda);
    Saved saved(arena_);
    saved.clear();
    LayerContext context{.tokens = tokens_, .scratch = scratch_, .stream = stream_};
    linear_.weight.grad_is_stale = true;
    {
      Arena::Scope scope(scratch_);
      if (codes) cast(x, linear_.expect_input(kRows, saved, context, offsets_));
      linear_.forward(codes ? ConstTensorView{} : x.view(), y, saved, context, offsets_);
    }
    {
      Arena::Scope scope(scratch_);
      if (codes) cast(dy, linear_.expect_gradient(kRows, saved, context, offsets_));
      linear_.backward_input(codes ? ConstTensorView{} : dy.view(), dx, saved, context, offsets_);
    }
    linear_.backward_weight(saved, context, offsets_);
    return {here(y), here(dx), here(linear_.weight.grad)};
  }
  const Linear& linear() const { return linear_; }

 private:
  void cast(const Tensor& x, const InputCodes& codes) {
    quantize({.x = x,
              .row_tiles = codes.along_columns,
              .column_tiles = codes.along_rows,
              .segments = offsets_,
              .stream = stream_});
  }
  Tensor there(const Tensor& tensor) {
    Tensor copied(tensor.dtype(), tensor.shape(), kCuda);
    copy(copied, tensor, stream_);
    return copied;
  }
  Tensor here(ConstTensorView view) {
    Tensor copied(view.dtype, view.shape);
    copy(copied, view, stream_);
    stream_.synchronize();
    return copied;
  }

  Stream stream_{kCuda};
  Linear linear_;
  std::vector<std::int64_t> offsets_;
  ParameterStore store_;
  Arena scratch_, arena_;
  TokenLayout tokens_;
};

TEST(EmulatedLinear, CodesFromElsewhereMakeTheBitsOfItsOwn) {
  for (const std::int64_t experts : {0, 4}) {
    LinearRun run(experts, experts == 0 ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{0, 16, 16, 48, 80});
    EXPECT_TRUE(run.linear().takes_input_codes(DeviceKind::cuda));
    EXPECT_TRUE(run.linear().takes_gradient_codes(DeviceKind::cuda));
    EXPECT_FALSE(run.linear().takes_input_codes(DeviceKind::cpu)) << "a product there casts as it packs";
    const LinearRun::Results own = run.run(false), given = run.run(true);
    EXPECT_TRUE(testing::same_bits(given.y, own.y));
    EXPECT_TRUE(testing::same_bits(given.dx, own.dx));
    EXPECT_TRUE(testing::same_bits(given.dw, own.dw));
    double sum = 0;
    for (std::int64_t i = 0; i < own.dw.view().elements(); ++i) sum += std::abs(testing::value_at(own.dw, i));
    EXPECT_GT(sum, 0);
  }
}

// What keeps its input plain, or adds to the product, reads it plain.
TEST(EmulatedLinear, AnInputThatIsReadAgainStaysPlain) {
  PrecisionSpec spec = testing::policy(PrecisionPolicy::fp8_block);
  spec.cache_fp8 = false;
  LinearOptions plain{.in = kIn, .out = kOut, .precision = covered_precision(spec)};
  append_slice(plain.slices, "w", kOut, kIn);
  EXPECT_FALSE(Linear(plain).takes_input_codes(DeviceKind::cuda));
  spec = testing::policy(PrecisionPolicy::fp8_tensor);
  plain.precision = covered_precision(spec);
  EXPECT_FALSE(Linear(plain).takes_input_codes(DeviceKind::cuda)) << "its scale is known when all of it is";
}

}  // namespace
}  // namespace shoestring
