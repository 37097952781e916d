#include "tests/support/gradient.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "kernels/base/random.h"
#include "tests/support/fill.h"

namespace shoestring::testing {
namespace {

double central_difference(const std::function<double()>& loss, TensorView variable, std::int64_t index, double step) {
  const double centre = value_at(variable, index);
  const auto at = [&](double offset) {
    set_value(variable, index, centre + offset);
    return loss();
  };
  const double near = at(step) - at(-step);
  const double far = at(2 * step) - at(-2 * step);
  set_value(variable, index, centre);
  return (8 * near - far) / (12 * step);
}

double root_mean_square(ConstTensorView view) {
  double sum = 0;
  for (std::int64_t i = 0; i < view.elements(); ++i) sum += value_at(view, i) * value_at(view, i);
  return std::sqrt(sum / static_cast<double>(std::max<std::int64_t>(1, view.elements())));
}

}  // namespace

::testing::AssertionResult gradient_matches(const std::function<double()>& loss, TensorView variable,
                                            ConstTensorView gradient, const GradientCheck& options) {
  if (variable.dtype != DType::f64 || gradient.dtype != DType::f64 || variable.shape != gradient.shape) {
    return ::testing::AssertionFailure() << "central differences need f64 of one shape, not " << variable.to_string()
                                         << " and " << gradient.to_string();
  }
  const std::int64_t count = variable.elements();
  const double scale = root_mean_square(gradient);
  if (!(scale > 0) || !std::isfinite(scale)) {
    return ::testing::AssertionFailure() << "the analytic gradient is zero or not finite: rms " << scale;
  }
  const Random random(options.seed, Purpose::test, 77);
  const std::int64_t samples = std::min(count, options.samples);
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const std::int64_t index = samples == count
                                   ? sample
                                   : static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(sample),
                                                                            static_cast<std::uint64_t>(count)));
    const double numeric = central_difference(loss, variable, index, options.step);
    const double analytic = value_at(gradient, index);
    const double allowed = options.tolerance * std::max(std::abs(numeric), scale);
    if (!(std::abs(numeric - analytic) <= allowed)) {
      return ::testing::AssertionFailure() << fmt::format(
                 "element {} of {}: gradient {:.12g}, central difference {:.12g}, {:.3g} times what is allowed", index,
                 variable.to_string(), analytic, numeric, std::abs(numeric - analytic) / allowed);
    }
  }
  return ::testing::AssertionSuccess();
}

double projection(ConstTensorView output, ConstTensorView weights) {
  double sum = 0;
  for (std::int64_t i = 0; i < output.elements(); ++i) sum += value_at(output, i) * value_at(weights, i);
  return sum;
}

}  // namespace shoestring::testing
