#include "kernels/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

using testing::cast;
using testing::heavy_tailed;
using testing::normal;
using testing::same_bits;
using testing::within;

constexpr std::int64_t kLengths[] = {1, 15, 16, 31, 32, 33, 4095, 4096, 4097, 8192 + 17, 50000};
constexpr ReduceKind kKinds[] = {ReduceKind::sum, ReduceKind::sum_of_squares, ReduceKind::max_abs};

TEST(Reduce, OrderIsThePublishedOne) {
  // By hand, from the contract: two blocks, 32 running sums each, pairwise.
  const std::int64_t n = 5000;
  const Tensor x = normal(DType::f32, {n}, 1);
  double block_sums[2] = {};
  for (int block = 0; block < 2; ++block) {
    double sums[32] = {};
    for (std::int64_t i = block * 4096; i < std::min<std::int64_t>(n, (block + 1) * 4096); ++i) {
      sums[i % 32] += static_cast<double>(x.as<float>()[i]);
    }
    for (int width = 32; width > 1; width /= 2) {
      for (int i = 0; i < width / 2; ++i) sums[i] = sums[2 * i] + sums[2 * i + 1];
    }
    block_sums[block] = sums[0];
  }
  Workers workers(1);
  Stream stream(workers);
  EXPECT_EQ(sum(x, stream), block_sums[0] + block_sums[1]);
}

TEST(Reduce, EveryVariantAndAnyWorkersGiveTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const std::int64_t n : kLengths) {
      const Tensor x = heavy_tailed(dtype, {n}, 3);
      for (const ReduceKind kind : kKinds) {
        double expected = NAN;
        for (const int count : {1, 2, 3}) {
          Workers workers(count);
          Stream stream(workers);
          for (const auto& variant : reduce_variants()) {
            double result = NAN;
            const ReduceArgs args{.result = &result, .x = x, .kind = kind, .stream = stream};
            if (!variant.refuses(args).empty()) continue;
            variant.run(args);
            if (std::isnan(expected)) expected = result;
            EXPECT_EQ(result, expected) << variant.name << " " << name(dtype) << " " << n << " workers " << count;
          }
        }
      }
    }
  }
}

TEST(Reduce, ValuesAreRight) {
  Workers workers(2);
  Stream stream(workers);
  const Tensor x = heavy_tailed(DType::f32, {33333}, 5);
  long double total = 0, squares = 0, magnitude = 0;
  double most = 0;
  for (std::int64_t i = 0; i < 33333; ++i) {
    const auto value = static_cast<long double>(x.as<float>()[i]);
    total += value;
    magnitude += std::abs(value);
    squares += value * value;
    most = std::max(most, static_cast<double>(std::abs(value)));
  }
  const double bound = testing::sum_error(33333, DType::f64);
  EXPECT_NEAR(sum(x, stream), static_cast<double>(total), bound * static_cast<double>(magnitude));
  EXPECT_NEAR(sum_of_squares(x, stream), static_cast<double>(squares), bound * static_cast<double>(squares));
  EXPECT_EQ(max_abs(x, stream), most);
  Tensor damaged = cast(x, DType::f32);
  damaged.as<float>()[33332] += 1e-3f;  // the tail counts
  EXPECT_GT(std::abs(sum(damaged, stream) - static_cast<double>(total)), bound * static_cast<double>(magnitude));
  const Tensor none(DType::f32, {0});
  EXPECT_EQ(sum(none, stream), 0);
  EXPECT_EQ(max_abs(none, stream), 0);
  EXPECT_TRUE(all_finite(none, stream));
}

TEST(Reduce, NonFiniteIsSeenAnywhere) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    for (const std::int64_t at : {0, 17, 4096, 9999}) {
      for (const double bad : {std::nan(""), -HUGE_VAL}) {
        Tensor x = normal(dtype, {10000}, 1);
        EXPECT_TRUE(all_finite(x, stream));
        testing::set_value(x, at, bad);
        for (const auto& variant : reduce_variants()) {
          double result = 0;
          const ReduceArgs args{.result = &result, .x = x, .kind = ReduceKind::max_abs, .stream = stream};
          if (!variant.refuses(args).empty()) continue;
          variant.run(args);
          EXPECT_EQ(std::isnan(result), std::isnan(bad)) << variant.name;
          EXPECT_FALSE(std::isfinite(result)) << variant.name;
        }
      }
    }
  }
}

TEST(Axpy, EveryVariantRoundsOnce) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType y_type : {DType::f32, DType::bf16}) {
    for (const DType x_type : {DType::f32, DType::bf16}) {
      for (const std::int64_t n : {1, 16, 31, 40000}) {
        const Tensor y0 = normal(y_type, {n}, 1), x = normal(x_type, {n}, 2);
        Tensor expected(y_type, {n}), scaled(y_type, {n}), alone(y_type, {n});
        for (std::int64_t i = 0; i < n; ++i) {
          const auto y = static_cast<float>(testing::value_at(y0, i));
          const auto value = static_cast<float>(testing::value_at(x, i));
          testing::set_value(expected, i, static_cast<double>(std::fma(-0.3f, value, y)));
          testing::set_value(scaled, i, static_cast<double>(-0.3f * y));
          testing::set_value(alone, i, static_cast<double>(-0.3f * value));
        }
        for (const auto& variant : axpy_variants()) {
          testing::Fenced y(y_type, {n});
          testing::assign(y, y0);
          AxpyArgs args{.y = y, .a = -0.3, .x = x, .stream = stream};
          if (!variant.refuses(args).empty()) continue;
          variant.run(args);
          EXPECT_TRUE(same_bits(y, expected)) << variant.name;
          args.overwrite = true;
          variant.run(args);
          EXPECT_TRUE(same_bits(y, alone)) << variant.name;
          testing::assign(y, y0);
          args.x = {};
          args.overwrite = false;
          variant.run(args);
          EXPECT_TRUE(same_bits(y, scaled)) << variant.name;
          EXPECT_TRUE(y.intact());
        }
      }
    }
  }
  Tensor wide = normal(DType::f64, {5}, 1);
  const Tensor before = testing::copy(wide), other = normal(DType::f64, {5}, 2);
  axpy(wide, 2.0, other, stream);
  EXPECT_EQ(wide.as<double>()[4], before.as<double>()[4] + 2.0 * other.as<double>()[4]);
  Tensor same(DType::f64, {5});
  convert(same, wide, stream);
  EXPECT_TRUE(same_bits(same, wide));
  scale(wide, 0.5, stream);
  EXPECT_EQ(wide.as<double>()[4], 0.5 * (before.as<double>()[4] + 2.0 * other.as<double>()[4]));
}

}  // namespace
}  // namespace shoestring
