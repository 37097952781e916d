#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/row_coverage.h"

namespace shoestring {
namespace {

using testing::assign;
using testing::cast;
using testing::Fenced;
using testing::normal;
using testing::same_bits;
using testing::uniform;
using testing::within;

struct State {
  Tensor parameter, first, second, gradient;
  State(std::int64_t n, DType real, DType moment)
      : parameter(normal(real, {n}, 1)),
        first(normal(moment, {n}, 2, 0.1)),
        second(uniform(moment, {n}, 3, 0.0, 0.02)),
        gradient(normal(real, {n}, 4, 300.0)) {}
};

AdamwArgs arguments(TensorView parameter, TensorView first, TensorView second, ConstTensorView gradient,
                    Stream& stream) {
  return {.parameter = parameter,
          .first_moment = first,
          .second_moment = second,
          .gradient = gradient,
          .gradient_scale = 1.0 / 3000,
          .learning_rate = 3e-3,
          .beta1 = 0.9,
          .beta2 = 0.95,
          .eps = 1e-8,
          .weight_decay = 0.1,
          .step = 7,
          .stream = stream};
}

// Algorithm 2 of the paper as it is written, in double.
void textbook(State& s, const AdamwArgs& a) {
  const auto t = static_cast<double>(a.step);
  for (std::int64_t i = 0; i < s.parameter.shape()[0]; ++i) {
    double& p = s.parameter.as<double>()[i];
    double& m = s.first.as<double>()[i];
    double& v = s.second.as<double>()[i];
    const double g = s.gradient.as<double>()[i] * a.gradient_scale;
    m = a.beta1 * m + (1 - a.beta1) * g;
    v = a.beta2 * v + (1 - a.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(a.beta1, t));
    const double v_hat = v / (1 - std::pow(a.beta2, t));
    p -= a.learning_rate * (m_hat / (std::sqrt(v_hat) + a.eps) + a.weight_decay * p);
  }
}

TEST(Adamw, EveryVariantTakesTheTextbookStep) {
  Workers workers(2);
  Stream stream(workers);
  for (const DType moment : {DType::f32, DType::bf16}) {
    for (const std::int64_t n : {1, 15, 16, 17, 1000}) {
      const State start(n, DType::f32, moment);
      State expected(n, DType::f64, DType::f64);
      assign(expected.parameter, start.parameter);
      assign(expected.first, start.first);
      assign(expected.second, start.second);
      assign(expected.gradient, start.gradient);
      textbook(expected, arguments(expected.parameter, expected.first, expected.second, expected.gradient, stream));
      for (const auto& variant : adamw_step_variants()) {
        SCOPED_TRACE(fmt::format("{} {} {}", variant.name, name(moment), n));
        Fenced parameter(DType::f32, {n}), first(moment, {n}), second(moment, {n}), half(DType::bf16, {n});
        assign(parameter, start.parameter);
        assign(first, start.first);
        assign(second, start.second);
        AdamwArgs args = arguments(parameter, first, second, start.gradient, stream);
        args.copy = half;
        if (!testing::runs(variant, args)) continue;
        variant.run(args);
        // m is a difference of terms of size 0.2 at most; v is a sum of positive terms. The step is lr times a ratio
        // below 10, so its relative error hardly shows beside the rounding of p itself.
        const double u = testing::unit_roundoff(DType::f32);
        EXPECT_TRUE(within(first, expected.first, {.relative = 1.01 * testing::unit_roundoff(moment), .absolute = u}));
        EXPECT_TRUE(within(second, expected.second, testing::rounding_bound(moment, DType::f32, 5)));
        EXPECT_TRUE(within(parameter, expected.parameter, {.relative = 3 * u, .absolute = 3e-3 * 10 * 10 * u}));
        EXPECT_TRUE(same_bits(half, cast(parameter, DType::bf16)));
        EXPECT_TRUE(parameter.intact() && first.intact() && second.intact() && half.intact());
        AdamwArgs wrong = args;  // a step later: the damage of a forgotten bias correction
        wrong.step = 8;
        assign(parameter, start.parameter);
        assign(first, start.first);
        assign(second, start.second);
        variant.run(wrong);
        EXPECT_FALSE(within(parameter, expected.parameter, {.relative = 3 * u, .absolute = 3e-3 * 10 * 10 * u}));
      }
    }
  }
}

TEST(Adamw, AllVariantsAndWorkersGiveTheSameBits) {
  const std::int64_t n = (1 << 18) + 77;  // long enough for the streamed copy
  const State start(n, DType::f32, DType::bf16);
  Tensor parameter1, first1, second1, half1;
  for (const int count : {1, 2, 3}) {
    Workers workers(count);
    Stream stream(workers);
    for (const auto& variant : adamw_step_variants()) {
      Tensor parameter = testing::copy(start.parameter), first = testing::copy(start.first),
             second = testing::copy(start.second), half(DType::bf16, {n});
      AdamwArgs args = arguments(parameter, first, second, start.gradient, stream);
      args.copy = half;
      if (!testing::runs(variant, args)) continue;
      variant.run(args);
      if (parameter1.empty()) {
        parameter1 = std::move(parameter);
        first1 = std::move(first);
        second1 = std::move(second);
        half1 = std::move(half);
        continue;
      }
      EXPECT_TRUE(same_bits(parameter, parameter1)) << variant.name;
      EXPECT_TRUE(same_bits(first, first1)) << variant.name;
      EXPECT_TRUE(same_bits(second, second1)) << variant.name;
      EXPECT_TRUE(same_bits(half, half1)) << variant.name;
    }
  }
}

TEST(Adamw, DoubleAndBrokenContracts) {
  Workers workers(1);
  Stream stream(workers);
  State state(9, DType::f64, DType::f64), expected(9, DType::f64, DType::f64);
  const AdamwArgs args = arguments(state.parameter, state.first, state.second, state.gradient, stream);
  adamw_step(args);
  textbook(expected, args);
  EXPECT_TRUE(within(state.parameter, expected.parameter, {.relative = 1e-14}));
  AdamwArgs broken = args;
  broken.step = 0;
  EXPECT_THROW(adamw_step(broken), Error);
  const Tensor shorter(DType::f64, {8});
  AdamwArgs cut = args;
  cut.gradient = shorter;
  EXPECT_THROW(adamw_step(cut), Error);
}

}  // namespace
}  // namespace shoestring
