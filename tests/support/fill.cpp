#include "tests/support/fill.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace shoestring::testing {
namespace {

std::int64_t offset_of(const Shape& shape, const Strides& strides, std::int64_t index) {
  std::int64_t offset = 0;
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    offset += index % shape[dim] * strides[dim];
    index /= shape[dim];
  }
  return offset;
}

template <class Draw>
void fill(TensorView view, Draw draw) {
  for (std::int64_t i = 0; i < view.elements(); ++i) set_value(view, i, draw(i));
}

}  // namespace

double value_at(ConstTensorView view, std::int64_t index) {
  const std::int64_t at = offset_of(view.shape, view.strides, index);
  switch (view.dtype) {
    case DType::f64: return view.as<double>()[at];
    case DType::f32: return static_cast<double>(view.as<float>()[at]);
    case DType::bf16: return static_cast<double>(static_cast<float>(view.as<BFloat16>()[at]));
    case DType::e4m3: return static_cast<double>(static_cast<float>(view.as<E4M3>()[at]));
    case DType::e5m2: return static_cast<double>(static_cast<float>(view.as<E5M2>()[at]));
    case DType::e8m0: return static_cast<double>(static_cast<float>(view.as<E8M0>()[at]));
    case DType::i64: return static_cast<double>(view.as<std::int64_t>()[at]);
    case DType::i32: return view.as<std::int32_t>()[at];
    case DType::u16: return view.as<std::uint16_t>()[at];
    case DType::u8: return view.as<std::uint8_t>()[at];
  }
  return 0;
}

void set_value(TensorView view, std::int64_t index, double value) {
  const std::int64_t at = offset_of(view.shape, view.strides, index);
  const auto single = static_cast<float>(value);
  switch (view.dtype) {
    case DType::f64: view.as<double>()[at] = value; break;
    case DType::f32: view.as<float>()[at] = single; break;
    case DType::bf16: view.as<BFloat16>()[at] = BFloat16(single); break;
    case DType::e4m3: view.as<E4M3>()[at] = E4M3(single); break;
    case DType::e5m2: view.as<E5M2>()[at] = E5M2(single); break;
    case DType::e8m0: view.as<E8M0>()[at] = E8M0(single); break;
    case DType::i64: view.as<std::int64_t>()[at] = static_cast<std::int64_t>(value); break;
    case DType::i32: view.as<std::int32_t>()[at] = static_cast<std::int32_t>(value); break;
    case DType::u16: view.as<std::uint16_t>()[at] = static_cast<std::uint16_t>(value); break;
    case DType::u8: view.as<std::uint8_t>()[at] = static_cast<std::uint8_t>(value); break;
  }
}

void fill_normal(TensorView view, std::uint64_t seed, double scale) {
  const Random random(seed, Purpose::test);
  fill(view, [&](std::int64_t i) { return scale * random.normal(static_cast<std::uint64_t>(i)); });
}

void fill_uniform(TensorView view, std::uint64_t seed, double low, double high) {
  const Random random(seed, Purpose::test);
  fill(view, [&](std::int64_t i) { return low + (high - low) * random.uniform(static_cast<std::uint64_t>(i)); });
}

void fill_heavy_tailed(TensorView view, std::uint64_t seed) {
  const Random random(seed, Purpose::test, 0);
  const Random width(seed, Purpose::test, 1);
  const Random channel(seed, Purpose::test, 2);
  const std::int64_t columns = view.shape.rank() == 0 ? 1 : view.shape[view.shape.rank() - 1];
  fill(view, [&](std::int64_t i) {
    const auto index = static_cast<std::uint64_t>(i);
    const double outlier = channel.below(static_cast<std::uint64_t>(i % columns), 64) == 0 ? 30.0 : 1.0;
    return std::clamp(outlier * random.normal(index) * std::exp(1.5 * width.normal(index)), -2e4, 2e4);
  });
}

void fill_constant(TensorView view, double value) {
  fill(view, [&](std::int64_t) { return value; });
}

void fill_integers(TensorView view, std::uint64_t seed, std::int64_t low, std::int64_t high) {
  const Random random(seed, Purpose::test);
  fill(view, [&](std::int64_t i) {
    const auto span = static_cast<std::uint64_t>(high - low);
    return static_cast<double>(low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(i), span)));
  });
}

Tensor normal(DType dtype, const Shape& shape, std::uint64_t seed, double scale) {
  Tensor tensor(dtype, shape);
  fill_normal(tensor, seed, scale);
  return tensor;
}

Tensor uniform(DType dtype, const Shape& shape, std::uint64_t seed, double low, double high) {
  Tensor tensor(dtype, shape);
  fill_uniform(tensor, seed, low, high);
  return tensor;
}

Tensor heavy_tailed(DType dtype, const Shape& shape, std::uint64_t seed) {
  Tensor tensor(dtype, shape);
  fill_heavy_tailed(tensor, seed);
  return tensor;
}

Tensor cast(ConstTensorView view, DType dtype) {
  Tensor tensor(dtype, view.shape);
  assign(tensor, view);
  return tensor;
}

Tensor copy(ConstTensorView view) {
  Tensor tensor(view.dtype, view.shape);
  const std::int64_t size = size_bytes(view.dtype);
  for (std::int64_t i = 0; i < view.elements(); ++i) {
    std::memcpy(tensor.as<char>() + i * size, view.as<char>() + offset_of(view.shape, view.strides, i) * size,
                static_cast<std::size_t>(size));
  }
  return tensor;
}

void assign(TensorView to, ConstTensorView from) {
  check(to.shape == from.shape, "assign {} to {}", from.to_string(), to.to_string());
  fill(to, [&](std::int64_t i) { return value_at(from, i); });
}

namespace {
constexpr std::int64_t kGuard = 64;  // elements on either side: more than a vector register's worth of any format
}

Fenced::Fenced(DType dtype, const Shape& shape, std::int64_t row_padding) {
  Shape padded = shape;
  if (shape.rank() > 0) padded[shape.rank() - 1] += row_padding;
  storage_ = Storage((padded.elements() + 2 * kGuard) * size_bytes(dtype), Device{});
  std::memset(storage_.data(), 0xFF, static_cast<std::size_t>(storage_.bytes()));
  view_ = view_of(static_cast<char*>(storage_.data()) + kGuard * size_bytes(dtype), dtype, shape);
  view_.strides = contiguous_strides(padded);
}

::testing::AssertionResult Fenced::intact() const {
  const std::int64_t size = size_bytes(view_.dtype);
  std::vector<bool> inside(static_cast<std::size_t>(storage_.bytes() / size), false);
  for (std::int64_t i = 0; i < view_.elements(); ++i) {
    inside[static_cast<std::size_t>(kGuard + offset_of(view_.shape, view_.strides, i))] = true;
  }
  const auto* bytes = static_cast<const unsigned char*>(storage_.data());
  for (std::int64_t i = 0; i < storage_.bytes(); ++i) {
    if (!inside[static_cast<std::size_t>(i / size)] && bytes[i] != 0xFF) {
      return ::testing::AssertionFailure()
             << "guard element " << i / size - kGuard << " of " << view_.to_string() << " was written";
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace shoestring::testing
