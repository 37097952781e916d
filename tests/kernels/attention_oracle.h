// Problems for tests of attention, and their solution by the formulas: no blocks, no variants, everything in double.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"
#include "tests/support/fill.h"

namespace shoestring::testing::attention {

struct Case {
  std::vector<std::int64_t> documents;
  std::int64_t heads;
  std::int64_t kv_heads;
  std::int64_t qk_dim;
  std::int64_t v_dim;

  std::int64_t tokens() const {
    std::int64_t sum = 0;
    for (const std::int64_t length : documents) sum += length;
    return sum;
  }
  std::string to_string() const {
    return fmt::format("{} documents, {} tokens, heads {}/{}, dims {}/{}", documents.size(), tokens(), heads, kv_heads,
                       qk_dim, v_dim);
  }
};

/// q, k, v as slices of one fused projection, so that no view is contiguous.
struct Problem {
  Case shape;
  Tensor fused, d_o, segment_start;
  double scale;

  Problem(const Case& c, DType dtype, std::uint64_t seed = 1)
      : shape(c),
        fused(normal(dtype, {c.tokens(), width(c)}, seed)),
        d_o(normal(dtype, {c.tokens(), c.heads, c.v_dim}, seed + 1)),
        segment_start(DType::i32, {c.tokens()}),
        scale(1.0 / std::sqrt(static_cast<double>(c.qk_dim))) {
    std::int64_t token = 0;
    for (const std::int64_t length : c.documents) {
      const auto start = static_cast<std::int32_t>(token);
      for (std::int64_t i = 0; i < length; ++i) segment_start.as<std::int32_t>()[token++] = start;
    }
  }

  static std::int64_t width(const Case& c) { return c.heads * c.qk_dim + c.kv_heads * (c.qk_dim + c.v_dim) + 8; }
  TensorView heads(std::int64_t column, std::int64_t count, std::int64_t dim) {
    TensorView view = fused.view();
    view.data = static_cast<char*>(view.data) + column * size_bytes(view.dtype);
    view.shape = {shape.tokens(), count, dim};
    view.strides = {width(shape), dim, 1};
    return view;
  }
  TensorView q() { return heads(0, shape.heads, shape.qk_dim); }
  TensorView k() { return heads(shape.heads * shape.qk_dim, shape.kv_heads, shape.qk_dim); }
  TensorView v() { return heads((shape.heads + shape.kv_heads) * shape.qk_dim, shape.kv_heads, shape.v_dim); }
};

struct Results {
  Tensor o, lse, dq, dk, dv;
};

inline Results empty_results(const Case& c, DType dtype) {
  const DType stat = dtype == DType::f64 ? DType::f64 : DType::f32;
  return {Tensor(dtype, {c.tokens(), c.heads, c.v_dim}), Tensor(stat, {c.heads, c.tokens()}),
          Tensor(dtype, {c.tokens(), c.heads, c.qk_dim}), Tensor(dtype, {c.tokens(), c.kv_heads, c.qk_dim}),
          Tensor(dtype, {c.tokens(), c.kv_heads, c.v_dim})};
}

// The formulas once more, without blocks and variants. `magnitude` holds what the terms behind each element add up to
// in absolute value; `shift` moves the causal mask, for damage.
struct Oracle {
  Results value, magnitude;
  double largest_score = 0;  // of sum |q k| * scale
};

struct Sums {
  double dot = 0;
  double magnitude = 0;
};

inline Sums dot(const Tensor& a, std::int64_t a_row, const Tensor& b, std::int64_t b_row, std::int64_t dim) {
  Sums sums;
  for (std::int64_t i = 0; i < dim; ++i) {
    const double term = a.as<double>()[a_row * dim + i] * b.as<double>()[b_row * dim + i];
    sums.dot += term;
    sums.magnitude += std::abs(term);
  }
  return sums;
}

inline void add(Tensor& to, Tensor& magnitude, std::int64_t row, const Tensor& from, std::int64_t from_row,
                std::int64_t dim, double factor, double size) {
  for (std::int64_t i = 0; i < dim; ++i) {
    const double value = from.as<double>()[from_row * dim + i];
    to.as<double>()[row * dim + i] += factor * value;
    magnitude.as<double>()[row * dim + i] += size * std::abs(value);
  }
}

/// `o` and `lse` are what the backward pass is given; empty = this oracle's own.
inline Oracle solve(Problem& problem, ConstTensorView o = {}, ConstTensorView lse = {}, std::int64_t shift = 0) {
  const Case& c = problem.shape;
  const Tensor q = cast(problem.q(), DType::f64);
  const Tensor k = cast(problem.k(), DType::f64);
  const Tensor v = cast(problem.v(), DType::f64);
  const Tensor d_o = cast(problem.d_o, DType::f64);
  Oracle oracle{empty_results(c, DType::f64), empty_results(c, DType::f64)};
  const Tensor given_o = o.empty() ? Tensor() : cast(o, DType::f64);
  for (std::int64_t item = 0; item < c.heads * c.tokens(); ++item) {
    const std::int64_t t = item / c.heads;
    const std::int64_t head = item % c.heads;
    const std::int64_t group = head / (c.heads / c.kv_heads);
    const auto start = static_cast<std::int64_t>(problem.segment_start.as<std::int32_t>()[t]);
    const std::int64_t end = std::clamp<std::int64_t>(t + shift, start, c.tokens() - 1);
    std::vector<double> score;
    double total = 0;
    for (std::int64_t s = start; s <= end; ++s) {
      const Sums sums = dot(q, item, k, s * c.kv_heads + group, c.qk_dim);
      oracle.largest_score = std::max(oracle.largest_score, problem.scale * sums.magnitude);
      score.push_back(problem.scale * sums.dot);
      total += std::exp(score.back());
    }
    const double log_total = std::log(total);
    oracle.value.lse.as<double>()[head * c.tokens() + t] = log_total;
    for (std::int64_t s = start; s <= end; ++s) {
      const double p = std::exp(score[static_cast<std::size_t>(s - start)] - log_total);
      add(oracle.value.o, oracle.magnitude.o, item, v, s * c.kv_heads + group, c.v_dim, p, p);
    }
    const double given_lse = lse.empty() ? log_total : value_at(lse, head * c.tokens() + t);
    const Sums delta = dot(d_o, item, o.empty() ? oracle.value.o : given_o, item, c.v_dim);
    for (std::int64_t s = start; s <= end; ++s) {
      const std::int64_t kv = s * c.kv_heads + group;
      const double p = std::exp(score[static_cast<std::size_t>(s - start)] - given_lse);
      const Sums dp = dot(d_o, item, v, kv, c.v_dim);
      const double ds = problem.scale * p * (dp.dot - delta.dot);
      const double size = problem.scale * p * (dp.magnitude + delta.magnitude);
      add(oracle.value.dv, oracle.magnitude.dv, kv, d_o, item, c.v_dim, p, p);
      add(oracle.value.dk, oracle.magnitude.dk, kv, q, item, c.qk_dim, ds, size);
      add(oracle.value.dq, oracle.magnitude.dq, item, k, kv, c.qk_dim, ds, size);
    }
  }
  return oracle;
}

}  // namespace shoestring::testing::attention
