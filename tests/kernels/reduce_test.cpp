#include "kernels/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::cast;
using testing::heavy_tailed;
using testing::normal;
using testing::same_bits;

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
            const ReduceArgs args{.result = view_of(&result, DType::f64, {1}), .x = x, .kind = kind, .stream = stream};
            if (!testing::runs(variant, args)) continue;
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
          const ReduceArgs args{
              .result = view_of(&result, DType::f64, {1}), .x = x, .kind = ReduceKind::max_abs, .stream = stream};
          if (!testing::runs(variant, args)) continue;
          variant.run(args);
          EXPECT_EQ(std::isnan(result), std::isnan(bad)) << variant.name;
          EXPECT_FALSE(std::isfinite(result)) << variant.name;
        }
      }
    }
  }
}

TEST(Axpby, EveryVariantRoundsOnce) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType out_type : {DType::f32, DType::bf16}) {
    for (const DType x_type : {DType::f32, DType::bf16}) {
      for (const DType y_type : {DType::f32, DType::bf16}) {
        for (const std::int64_t n : {1, 16, 31, 40000}) {
          const Tensor x = normal(x_type, {n}, 1), y = normal(y_type, {n}, 2);
          Tensor both(out_type, {n}), alone(out_type, {n});
          for (std::int64_t i = 0; i < n; ++i) {
            const auto first = static_cast<float>(testing::value_at(x, i));
            const auto second = static_cast<float>(testing::value_at(y, i));
            testing::set_value(both, i, static_cast<double>(std::fma(-0.3f, first, 0.7f * second)));
            testing::set_value(alone, i, static_cast<double>(-0.3f * first));
          }
          for (const auto& variant : axpby_variants()) {
            testing::Fenced out(out_type, {n});
            AxpbyArgs args{.out = out, .a = -0.3, .x = x, .b = 0.7, .y = y, .stream = stream};
            if (!testing::runs(variant, args)) continue;
            variant.run(args);
            EXPECT_TRUE(same_bits(out, both)) << variant.name;
            args.y = {};
            variant.run(args);
            EXPECT_TRUE(same_bits(out, alone)) << variant.name;
            EXPECT_TRUE(out.intact());
          }
        }
      }
    }
  }
}

TEST(Axpby, ShortFormsAndDoubles) {
  Workers workers(1);
  Stream stream(workers);
  for (const DType dtype : {DType::f64, DType::bf16}) {
    const Tensor x = normal(dtype, {5}, 1), before = normal(dtype, {5}, 2);
    Tensor y = testing::copy(before), expected(dtype, {5});
    const auto expect = [&](double (*value)(double, double)) {
      for (std::int64_t i = 0; i < 5; ++i) {
        testing::set_value(expected, i, value(testing::value_at(x, i), testing::value_at(before, i)));
      }
      EXPECT_TRUE(same_bits(y, expected));
    };
    axpy(y, 2, x, stream);
    expect([](double first, double second) { return 2 * first + second; });
    scale(y, 0.5, x, stream);
    expect([](double first, double) { return 0.5 * first; });
    convert(y, x, stream);
    expect([](double first, double) { return first; });
    axpby(y, 4, y, -2, x, stream);
    expect([](double first, double) { return 2 * first; });
  }
  Tensor three(DType::f32, {3});
  const Tensor doubles = normal(DType::f64, {3}, 3), four = normal(DType::f32, {4}, 3);
  EXPECT_THROW(axpy(three, 1, doubles, stream), Error);
  EXPECT_THROW(axpby(three, 1, three, 1, four, stream), Error);
}

}  // namespace
}  // namespace shoestring
