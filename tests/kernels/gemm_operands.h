// Operands of matrix products in every format and memory order, and what their product must be.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/quantize.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"

namespace shoestring::testing {

/// An operand in some format with the memory behind it; `view` is [rows, k].
struct Operand {
  Tensor values;
  Tensor scales;
  ConstScaledView view;
};

enum class Order { k_contiguous, rows_contiguous };

/// How an operand is made: format, scales, memory order.
struct Make {
  DType dtype = DType::f32;
  Granularity granularity = kRowTile128;
  ScaleKind kind = ScaleKind::f32;
  Order order = Order::k_contiguous;
};

inline Operand make(const Make& how, std::int64_t rows, std::int64_t k, std::uint64_t seed, Stream& stream) {
  Operand o;
  const bool flip = how.order == Order::rows_contiguous;
  o.values = Tensor(how.dtype, flip ? Shape{k, rows} : Shape{rows, k});
  TensorView values = flip ? o.values.view().transposed() : o.values.view();
  const Tensor plain = heavy_tailed(DType::f32, {rows, k}, seed);
  if (size_bytes(how.dtype) != 1) {
    assign(values, plain);
    o.view = unscaled(values);
    return o;
  }
  o.scales = Tensor(how.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32, scales_shape(rows, k, how.granularity));
  const ScaledView scaled{values, o.scales, how.granularity};
  if (o.values.view().elements() > 0) {
    quantize({.x = plain, .row_tiles = scaled, .scale_kind = how.kind, .stream = stream});
  }
  o.view = scaled;
  return o;
}

inline double scale_at(const ConstScaledView& view, std::int64_t row, std::int64_t k) {
  if (!view.scaled()) return 1;
  const std::int64_t r = view.granularity.rows == 0 ? 0 : row / view.granularity.rows;
  const std::int64_t c = view.granularity.columns == 0 ? 0 : k / view.granularity.columns;
  return value_at(view.scales, r * view.scales.shape[1] + c);
}

/// [rows, k] in double.
inline Tensor dequantised(const ConstScaledView& view) {
  Tensor out(DType::f64, view.values.shape);
  const std::int64_t k = view.values.shape[1];
  for (std::int64_t i = 0; i < view.values.elements(); ++i) {
    out.as<double>()[i] = value_at(view.values, i) * scale_at(view, i / k, i % k);
  }
  return out;
}

/// c = a * b^T in double, and the same of absolute values.
struct Expected {
  Tensor c;
  Tensor magnitude;
};

inline Expected expected(const ConstScaledView& a, const ConstScaledView& b, ConstTensorView start,
                         ConstTensorView bias) {
  const Tensor da = dequantised(a);
  const Tensor db = dequantised(b);
  const std::int64_t m = da.shape()[0];
  const std::int64_t n = db.shape()[0];
  const std::int64_t k = da.shape()[1];
  Expected e{Tensor(DType::f64, {m, n}), Tensor(DType::f64, {m, n})};
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = start.empty() ? 0 : value_at(start, i * n + j);
      if (!bias.empty()) sum += value_at(bias, j);
      double magnitude = std::abs(sum);
      for (std::int64_t x = 0; x < k; ++x) {
        const double term = da.as<double>()[i * k + x] * db.as<double>()[j * k + x];
        sum += term;
        magnitude += std::abs(term);
      }
      e.c.as<double>()[i * n + j] = sum;
      e.magnitude.as<double>()[i * n + j] = magnitude;
    }
  }
  return e;
}

/// Sums of k products in FP32; promotion, factor, bias and accumulation round a few times more.
inline Bound bound_of(DType c, std::int64_t k) {
  Bound bound = rounding_bound(c, DType::f32, 4, std::max<std::int64_t>(1, k + k / 32 + 4));
  bound.allow_zeros = k == 0;
  return bound;
}

}  // namespace shoestring::testing
