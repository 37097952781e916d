#include "tools/bench/cuda_compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/random.h"

namespace shoestring::cuda_compare {

void Bench::verdict(std::string name, bool passed, std::string detail) {
  checks.push_back({std::move(name), passed, std::move(detail)});
  if (observer) observer(checks.back());
}

void Bench::part(const std::string& name, const std::function<void()>& body) {
  if (inside == 0 && wanted && !wanted(name)) return;
  ++inside;
  try {
    body();
  } catch (const std::exception& error) {
    verdict(name, false, error.what());
  }
  --inside;
}

Tensor Bench::to_device(ConstTensorView view) {
  Tensor tensor(view.dtype, view.shape, cuda.device());
  copy(tensor, view, cuda);
  return tensor;
}

Tensor Bench::to_host(ConstTensorView view) {
  Tensor tensor(view.dtype, view.shape);
  copy(tensor, view, cuda);
  cuda.synchronize();
  return tensor;
}

Tensors result_of(const Op& op, const Tensors& tensors, Stream& stream) {
  Tensors there;
  for (const Tensor& tensor : tensors) {
    there.emplace_back(tensor.dtype(), tensor.shape(), stream.device());
    copy(there.back(), tensor, stream);
  }
  op(there, stream);
  stream.synchronize();
  return there;
}

void check_bits(Bench& bench, const std::string& name, const Tensors& tensors, const Op& op) {
  bench.part(name, [&] {
    const Tensors expected = result_of(op, tensors, bench.cpu), device = result_of(op, tensors, bench.cuda);
    std::string detail;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::string text = difference(bench.to_host(device[i]), expected[i]);
      if (!text.empty()) detail += fmt::format("tensor {}: {}", i, text);
    }
    bench.verdict(name, detail.empty(), detail);
  });
}

void check_close(Bench& bench, const std::string& name, const Tensors& tensors, const Op& op,
                 const std::function<std::vector<Close>(const Tensors&)>& close) {
  bench.part(name, [&] {
    const Tensors expected = result_of(op, in_double(tensors), bench.cpu);
    const Tensors device = result_of(op, tensors, bench.cuda);
    for (const Close& bound : close(expected)) {
      const Tensor ours = bench.to_host(device[bound.tensor]);
      const double worst = worst_error(ours, expected[bound.tensor], bound.sum, bound.magnitude);
      std::string detail = fmt::format("worst error {:.3f} of its bound", worst);
      const double norm = bound.norm > 0 ? norm_error(ours, expected[bound.tensor]) : 0;
      if (bound.norm > 0) detail += fmt::format(", of the whole {:.2g} where {:.2g} may be", norm, bound.norm);
      bench.verdict(name + ": " + bound.what, worst <= 1 && norm <= bound.norm, detail);
    }
  });
}

Tensor poisoned(DType dtype, const Shape& shape) {
  Tensor tensor(dtype, shape);
  std::memset(tensor.as<char>(), 0xFF, static_cast<std::size_t>(tensor.bytes()));
  return tensor;
}

Tensors in_double(const Tensors& tensors) {
  Tensors wide;
  for (const Tensor& tensor : tensors) {
    const bool single = tensor.dtype() == DType::f32 || tensor.dtype() == DType::bf16;
    Tensor& to = wide.emplace_back(single ? DType::f64 : tensor.dtype(), tensor.shape());
    if (!single) std::memcpy(to.as<char>(), tensor.as<char>(), static_cast<std::size_t>(tensor.bytes()));
    for (std::int64_t i = 0; single && i < tensor.view().elements(); ++i) to.as<double>()[i] = value(tensor, i);
  }
  return wide;
}

Tensor integers(const Shape& shape, int modulus, int step) {
  Tensor tensor(DType::i32, shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    tensor.as<std::int32_t>()[i] = static_cast<std::int32_t>((i * step + i / 7) % modulus);
  }
  return tensor;
}

Tensor numbers(DType dtype, const Shape& shape, std::uint32_t stream, bool hostile) {
  Tensor tensor(dtype, shape);
  const Random random(17, Purpose::test, stream);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const auto index = static_cast<std::uint64_t>(i);
    double value = random.normal(2 * index) * std::exp(1.5 * random.normal(2 * index + 1));
    const std::uint64_t draw = hostile ? random.below(index, 128) : 127;
    if (draw == 0) value *= 1e-9;
    if (draw == 1) value = i % 2 == 0 ? 0.0 : -0.0;
    if (draw == 2) value = std::numeric_limits<double>::quiet_NaN();
    if (draw == 3) value = i % 2 == 0 ? HUGE_VAL : -HUGE_VAL;
    if (draw == 4) value = 448;  // with the maximum at 448 (below) the scale is 1 and ties are ties
    if (draw >= 5 && draw < 40)
      value = (static_cast<double>(i % 17) + 8.5) * std::ldexp(1.0, static_cast<int>(i % 18) - 13);
    if (dtype == DType::f32) {
      tensor.as<float>()[i] = static_cast<float>(value);
    } else {
      tensor.as<BFloat16>()[i] = BFloat16(static_cast<float>(value));
    }
  }
  return tensor;
}

std::string difference(const Tensor& a, const Tensor& b) {
  const auto* left = a.as<std::uint8_t>();
  const auto* right = b.as<std::uint8_t>();
  std::int64_t wrong = 0;
  std::int64_t first = -1;
  for (std::int64_t i = 0; i < a.bytes(); ++i) {
    if (left[i] == right[i]) continue;
    if (wrong++ == 0) first = i;
  }
  return wrong == 0 ? ""
                    : fmt::format("{} of {} bytes differ, first at {}: {} instead of {}; ", wrong, a.bytes(), first,
                                  left[first], right[first]);
}

double value(const Tensor& t, std::int64_t i) {
  if (t.dtype() == DType::f64) return t.as<double>()[i];
  return t.dtype() == DType::f32 ? double{t.as<float>()[i]} : double{float{t.as<BFloat16>()[i]}};
}

double worst_error(const Tensor& a, const Tensor& b, double sum, const std::vector<double>& magnitude) {
  const double unit = a.dtype() == DType::bf16 ? 0x1p-8 : 0x1p-24;
  double worst = 0;
  for (std::int64_t i = 0; i < a.view().elements(); ++i) {
    const double behind = magnitude[static_cast<std::size_t>(i) % magnitude.size()];
    const double bound = 2 * unit * std::abs(value(b, i)) + sum * behind + 1e-30;
    const double error = std::abs(value(a, i) - value(b, i)) / bound;
    worst = error >= worst ? error : std::isnan(error) ? HUGE_VAL : worst;  // NaN stays the worst there is
  }
  return worst;
}

double norm_error(const Tensor& a, const Tensor& b) {
  double error = 0;
  double whole = 0;
  for (std::int64_t i = 0; i < a.view().elements(); ++i) {
    error += (value(a, i) - value(b, i)) * (value(a, i) - value(b, i));
    whole += value(b, i) * value(b, i);
  }
  return std::isnan(error) ? HUGE_VAL : std::sqrt(error / whole);
}

double sum_error(std::int64_t length) { return 12 * std::sqrt(static_cast<double>(length)) * 0x1p-24; }

}  // namespace shoestring::cuda_compare
