// What of the CUDA rows can be tried without a device: who declines what, and that the casts of dtype.h are those of
// CUDA's own FP8 header, whose host code does what the device's conversion instruction does.
#include <cuda_fp8.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/base/random.h"
#include "kernels/base/workers.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "kernels/rms_norm.h"

namespace shoestring {
namespace {

template <class Payload>
void expect_cast(float value, __nv_fp8_interpretation_t format) {
  const int expected = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, format);
  ASSERT_EQ(Payload(value).bits, expected) << value;
}

TEST(QuantizeCuda, CastsAreThoseOfTheCudaHeader) {
  const Random random(23, Purpose::test);
  for (std::uint64_t i = 0; i < 1 << 20; ++i) {
    const float value = dtype_bits::to_float(static_cast<std::uint32_t>(random.u64(i)));
    if (std::isnan(value)) continue;  // the CUDA row takes care of NaN by itself
    expect_cast<E4M3>(value, __NV_E4M3);
    expect_cast<E5M2>(value, __NV_E5M2);
  }
  for (int exponent = -20; exponent <= 18; ++exponent) {
    for (int eighths = 0; eighths < 64; ++eighths) {  // every midpoint of both formats is among these
      const float middle = std::ldexp(1.0f + static_cast<float>(eighths) / 64, exponent);
      for (const float value : {std::nextafterf(middle, 0.0f), middle, std::nextafterf(middle, INFINITY)}) {
        expect_cast<E4M3>(value, __NV_E4M3);
        expect_cast<E4M3>(-value, __NV_E4M3);
        expect_cast<E5M2>(value, __NV_E5M2);
        expect_cast<E5M2>(-value, __NV_E5M2);
      }
    }
  }
  for (const float value : {0.0f, -0.0f, INFINITY, -INFINITY, 464.0f, 61440.0f, 0x1p-10f, 0x1p-17f}) {
    expect_cast<E4M3>(value, __NV_E4M3);
    expect_cast<E5M2>(value, __NV_E5M2);
  }
  EXPECT_EQ(__nv_cvt_float_to_fp8(std::numeric_limits<float>::quiet_NaN(), __NV_SATFINITE, __NV_E4M3), 0x7F);
}

/// The reason each row of a table gives.
template <class Args>
std::vector<std::string> reasons(std::span<const Variant<Args>> rows, const Args& args) {
  std::vector<std::string> texts;
  for (const Variant<Args>& row : rows) texts.push_back(row.refuses(args));
  return texts;
}

TEST(QuantizeCuda, RowsDeclineTensorsOfTheOtherKind) {
  Workers workers(1);
  Stream stream(workers);
  Tensor x(DType::f32, {4, 128});
  Tensor codes(DType::e4m3, {4, 128});
  Tensor scales(DType::f32, {4, 1});
  QuantizeArgs args{.x = x, .row_tiles = {codes, scales, kRowTile128}, .stream = stream};
  ASSERT_EQ(quantize_variants().front().name, "cuda");
  EXPECT_EQ(reasons(quantize_variants(), args).front(), "runs on a CUDA stream only");
  args.x.device = args.row_tiles.values.device = args.row_tiles.scales.device = {DeviceKind::cuda, 0};
  const std::vector<std::string> elsewhere = reasons(quantize_variants(), args);
  EXPECT_EQ(elsewhere.front(), "runs on a CUDA stream only");
  for (std::size_t row = 1; row < elsewhere.size(); ++row) EXPECT_EQ(elsewhere[row], "the tensors are on cuda:0");
}

TEST(QuantizeCuda, NormAndProductDeclineACpuStream) {
  Workers workers(1);
  Stream stream(workers);
  Tensor x(DType::f32, {4, 16});
  Tensor gamma(DType::f32, {16});
  const RmsNormArgs norm{.y = x, .x = x, .gamma = gamma, .sum = {}, .eps = 1e-6f, .stream = stream};
  ASSERT_EQ(rms_norm_forward_variants().front().name, "cuda");
  EXPECT_EQ(reasons(rms_norm_forward_variants(), norm).front(), "runs on a CUDA stream only");
  Tensor c(DType::f32, {4, 4});
  Arena scratch;
  const GemmArgs product{.c = c, .a = unscaled(x), .b = unscaled(x), .scratch = scratch, .stream = stream};
  ASSERT_EQ(gemm_variants().front().name, "cublaslt");
  EXPECT_EQ(reasons(gemm_variants(), product).front(), "runs on a CUDA stream only");
}

}  // namespace
}  // namespace shoestring
