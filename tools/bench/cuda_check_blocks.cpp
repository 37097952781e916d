// SwiGLU and cross-entropy on a CUDA device: against double.
#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/cross_entropy.h"
#include "kernels/swiglu.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr double kFewRoundings = 24 * 0x1p-24;  // of exp, a division, and the products around them

// ---- SwiGLU: gate_up, row weights, dy -> y, dgate_up, drow_weight

enum SwigluPart : std::size_t { kGateUp, kWeight, kDy, kY, kDgateUp, kDweight };

Tensors swiglu_inputs(DType dtype, std::int64_t rows, std::int64_t f) {
  Tensors tensors;
  tensors.push_back(numbers(dtype, {rows, 2 * f}, 51));
  tensors.push_back(numbers(DType::f32, {rows}, 52));
  tensors.push_back(numbers(dtype, {rows, f}, 53));
  tensors.push_back(poisoned(dtype, {rows, f}));
  tensors.push_back(poisoned(dtype, {rows, 2 * f}));
  tensors.push_back(poisoned(DType::f32, {rows}));
  return tensors;
}

/// Magnitudes of the terms: the slope s (1 + g (1 - s)) cancels near g = -1.28, the row weight's gradient anywhere.
std::vector<Close> swiglu_bounds(const Tensors& t, float clamp) {
  const std::int64_t rows = t[kDy].shape()[0], f = t[kDy].shape()[1];
  std::vector<double> y(static_cast<std::size_t>(rows * f)), dgate_up(2 * y.size());
  std::vector<double> dweight(static_cast<std::size_t>(rows));
  const double limit = clamp > 0 ? static_cast<double>(clamp) : HUGE_VAL;
  for (std::int64_t i = 0; i < rows * f; ++i) {
    const std::int64_t row = i / f, at = row * 2 * f + i % f;
    const double g = std::min(value(t[kGateUp], at), limit);
    const double u = std::clamp(value(t[kGateUp], at + f), -limit, limit);
    const double s = 1 / (1 + std::exp(-g)), w = std::abs(value(t[kWeight], row)), dy = std::abs(value(t[kDy], i));
    y[static_cast<std::size_t>(i)] = std::abs(w * g * s * u);
    dgate_up[static_cast<std::size_t>(at)] = w * dy * std::abs(u) * s * (1 + std::abs(g) / (1 + std::exp(g)));
    dgate_up[static_cast<std::size_t>(at + f)] = w * dy * std::abs(g) * s;
    dweight[static_cast<std::size_t>(row)] += dy * std::abs(g * s * u);
  }
  return {{kY, "y", kFewRoundings, y},
          {kDgateUp, "dgate_up", kFewRoundings, dgate_up},
          {kDweight, "drow_weight", kFewRoundings + sum_error(f), dweight}};
}

void check_swiglu(Bench& bench, DType dtype, std::int64_t rows, std::int64_t f, float clamp) {
  const Tensors tensors = swiglu_inputs(dtype, rows, f);
  const std::string name_of = fmt::format("swiglu {} [{}, {}] clamp {}", name(dtype), rows, f, clamp);
  const auto gradient = [&](Tensors& t, Stream& stream) {
    swiglu_gradient({.dgate_up = t[kDgateUp],
                     .drow_weight = t[kDweight],
                     .y = t[kY],
                     .dy = t[kDy],
                     .gate_up = unscaled(t[kGateUp]),
                     .row_weight = t[kWeight],
                     .clamp = clamp,
                     .stream = stream});
  };
  check_close(bench, name_of, tensors, gradient, [&](const Tensors& t) { return swiglu_bounds(t, clamp); });
  check_close(
      bench, name_of + " forward", tensors,
      [&](Tensors& t, Stream& stream) {
        swiglu_forward(
            {.y = t[kY], .gate_up = unscaled(t[kGateUp]), .row_weight = t[kWeight], .clamp = clamp, .stream = stream});
      },
      [&](const Tensors& t) { return std::vector<Close>{swiglu_bounds(t, clamp).front()}; });
  bench.part(name_of + " in place", [&] {  // dgate_up over gate_up, y over dy, and no row weight
    Tensors apart = result_of(gradient, tensors, bench.cuda);
    const Tensors in_place = result_of(
        [&](Tensors& t, Stream& stream) {
          swiglu_gradient({.dgate_up = t[kGateUp],
                           .y = t[kDy],
                           .dy = t[kDy],
                           .gate_up = unscaled(t[kGateUp]),
                           .row_weight = t[kWeight],
                           .clamp = clamp,
                           .stream = stream});
        },
        tensors, bench.cuda);
    const std::string detail = difference(bench.to_host(in_place[kGateUp]), bench.to_host(apart[kDgateUp])) +
                               difference(bench.to_host(in_place[kDy]), bench.to_host(apart[kY]));
    bench.verdict(name_of + " in place", detail.empty(), detail);
  });
}

// Gate and up as they are cached: what is read dequantised is what dequantise writes, where the format holds it.
void check_swiglu_of_codes(Bench& bench, DType dtype, ScaleKind kind) {
  constexpr std::int64_t kRows = 9, kF = 256;
  const std::string name_of = fmt::format("swiglu {} of e4m3, scales of kind {}", name(dtype), static_cast<int>(kind));
  bench.part(name_of, [&] {
    const Tensor plain = numbers(dtype, {kRows, 2 * kF}, 54), dy = numbers(dtype, {kRows, kF}, 55);
    Tensor codes(DType::e4m3, {kRows, 2 * kF});
    Tensor scales(kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32, {kRows, kF / 64});
    quantize({.x = plain, .row_tiles = {codes, scales, kRowTile128}, .scale_kind = kind, .stream = bench.cpu});
    const Tensor codes_there = bench.to_device(codes), scales_there = bench.to_device(scales);
    const Tensor dy_there = bench.to_device(dy);
    const ConstScaledView cached{codes_there, scales_there, kRowTile128};
    Tensor wide(dtype, {kRows, 2 * kF}, bench.device());
    dequantize({.y = wide, .x = cached, .stream = bench.cuda});
    std::vector<Tensor> results;
    for (const ConstScaledView& gate_up : {cached, unscaled(wide)}) {
      Tensor& y = results.emplace_back(dtype, Shape{kRows, kF}, bench.device());
      swiglu_forward({.y = y, .gate_up = gate_up, .stream = bench.cuda});
      Tensor& dgate_up = results.emplace_back(dtype, Shape{kRows, 2 * kF}, bench.device());
      swiglu_gradient({.dgate_up = dgate_up, .dy = dy_there, .gate_up = gate_up, .stream = bench.cuda});
    }
    const std::string detail = difference(bench.to_host(results[0]), bench.to_host(results[2])) +
                               difference(bench.to_host(results[1]), bench.to_host(results[3]));
    bench.verdict(name_of, detail.empty(), detail);
  });
}

// ---- cross-entropy: logits, targets, weights -> loss, lse, dlogits, sums, count

enum LossPart : std::size_t {
  kLogits,
  kTargets,
  kWeights,
  kLoss,
  kLse,
  kDlogits,
  kSum,
  kWeightSum,
  kCount,
  kMax,
  kRunning,
  kTarget
};

struct LossCase {
  DType logits, dlogits;
  std::int64_t rows, vocabulary;
  bool weighted = false;
};

float weight_of(std::int64_t row) { return 0.75f * static_cast<float>(row % 4 - 1); }

/// They are f32 in double runs too, and travel as integers, which nobody widens.
ConstTensorView weights_of(const Tensors& t) {
  ConstTensorView view = t[kWeights];
  view.dtype = DType::f32;
  return view;
}

Tensors loss_inputs(const LossCase& c) {
  Tensors tensors;
  tensors.push_back(numbers(c.logits, {c.rows, c.vocabulary}, 58));
  tensors.push_back(integers({c.rows}, static_cast<int>(c.vocabulary), 7));
  for (std::int64_t row = 1; row < c.rows; row += 3) tensors[kTargets].as<std::int32_t>()[row] = -1;
  tensors.emplace_back(DType::i32, Shape{c.weighted ? c.rows : 0});
  for (std::int64_t row = 0; c.weighted && row < c.rows; ++row) {  // one of 0, and one below it
    tensors[kWeights].as<std::int32_t>()[row] = std::bit_cast<std::int32_t>(weight_of(row));
  }
  for (int i = 0; i < 2; ++i) tensors.push_back(poisoned(DType::f32, {c.rows}));
  tensors.push_back(poisoned(c.dlogits, {c.rows, c.vocabulary}));
  for (int i = 0; i < 2; ++i) tensors.emplace_back(DType::f64, Shape{1});
  tensors.emplace_back(DType::i64, Shape{1});
  for (int i = 0; i < 3; ++i) tensors.emplace_back(DType::f32, Shape{c.rows});
  return tensors;
}

constexpr double kScale = 0.3;

std::vector<Close> loss_bounds(const LossCase& c, const Tensors& t) {
  const double sums = sum_error(c.vocabulary) + kFewRoundings;
  std::vector<double> rows(static_cast<std::size_t>(c.rows), 1.0), gradient;
  double all = 0;
  for (std::int64_t row = 0; row < c.rows; ++row) {
    double most = 0;
    for (std::int64_t j = 0; j < c.vocabulary; ++j)
      most = std::max(most, std::abs(value(t[kLogits], row * c.vocabulary + j)));
    double& magnitude = rows[static_cast<std::size_t>(row)];
    magnitude += most + std::abs(value(t[kLse], row));
    const double weight = c.weighted ? std::abs(double{weight_of(row)}) : 1.0;
    all += weight * magnitude;
    const std::int32_t target = t[kTargets].as<std::int32_t>()[row];
    for (std::int64_t j = 0; j < c.vocabulary; ++j) {
      const double p = std::exp(value(t[kLogits], row * c.vocabulary + j) - value(t[kLse], row));
      gradient.push_back(kScale * weight * (p * magnitude + (j == target ? 1.0 : 0.0)));
    }
  }
  return {{kLoss, "loss", sums, rows},
          {kLse, "lse", sums, rows},
          {kDlogits, "dlogits", sums, gradient},
          {kSum, "sum", sums, {all}},
          {kWeightSum, "weights", 0, {0.0}}};
}

void cross_entropy_of(Tensors& t, Stream& stream, TensorView dlogits) {
  cross_entropy({.loss = t[kLoss],
                 .lse = t[kLse],
                 .loss_sum = t[kSum],
                 .count = t[kCount],
                 .dlogits = dlogits,
                 .logits = t[kLogits],
                 .targets = t[kTargets],
                 .scale = kScale,
                 .stream = stream,
                 .weights = weights_of(t),
                 .weight_sum = t[kWeightSum]});
}

void in_chunks(Tensors& t, Stream& stream, std::int64_t columns) {
  const std::int64_t vocabulary = t[kLogits].shape()[1];
  cross_entropy_begin(t[kMax], t[kRunning], t[kTarget], stream);
  for (std::int64_t first = 0; first < vocabulary; first += columns) {
    const ConstTensorView chunk = t[kLogits].view().slice(1, first, std::min(columns, vocabulary - first));
    cross_entropy_chunk({t[kMax], t[kRunning], t[kTarget], chunk, t[kTargets], first, stream});
  }
  cross_entropy_finish({t[kLse], t[kLoss], t[kSum], t[kCount], t[kMax], t[kRunning], t[kTarget], t[kTargets],
                        vocabulary, stream, weights_of(t), t[kWeightSum]});
  for (std::int64_t first = 0; first < vocabulary; first += columns) {
    const std::int64_t count = std::min(columns, vocabulary - first);
    cross_entropy_chunk_gradient({t[kDlogits].view().slice(1, first, count), t[kLogits].view().slice(1, first, count),
                                  t[kLse], t[kTargets], first, kScale, stream, weights_of(t)});
  }
}

void check_loss(Bench& bench, const LossCase& c) {
  const Tensors tensors = loss_inputs(c);
  const std::string name_of = fmt::format("cross_entropy {} to {} [{}, {}]{}", name(c.logits), name(c.dlogits), c.rows,
                                          c.vocabulary, c.weighted ? " weighted" : "");
  const auto bounds = [&](const Tensors& t) { return loss_bounds(c, t); };
  const auto whole = [](Tensors& t, Stream& stream) { cross_entropy_of(t, stream, t[kDlogits]); };
  check_close(bench, name_of, tensors, whole, bounds);
  check_close(
      bench, name_of + " in chunks", tensors,
      [&](Tensors& t, Stream& stream) { in_chunks(t, stream, c.vocabulary / 3 + 1); }, bounds);
  bench.part(name_of + " in place", [&] {
    const Tensors apart = result_of(whole, tensors, bench.cuda);
    const Tensors in_place = result_of(
        [&](Tensors& t, Stream& stream) {
          TensorView over = t[kLogits];
          over.dtype = c.dlogits;
          over.strides[0] *= size_bytes(c.logits) / size_bytes(c.dlogits);
          cross_entropy_of(t, stream, over);
          Tensor dense(c.dlogits, {c.rows, c.vocabulary}, stream.device());
          copy(dense, over, stream);
          copy(t[kDlogits], dense, stream);
          stream.synchronize();
        },
        tensors, bench.cuda);
    const std::string detail = difference(bench.to_host(in_place[kDlogits]), bench.to_host(apart[kDlogits]));
    bench.verdict(name_of + " in place", detail.empty(), detail);
  });
}

// What a host would refuse: seen as NaN.
void check_wrong_target(Bench& bench) {
  bench.part("cross_entropy of a wrong target", [&] {
    Tensors tensors = loss_inputs({DType::f32, DType::f32, 2, 40});
    tensors[kTargets].as<std::int32_t>()[0] = 40;
    const Tensors result =
        result_of([](Tensors& t, Stream& s) { cross_entropy_of(t, s, t[kDlogits]); }, tensors, bench.cuda);
    const Tensor loss = bench.to_host(result[kLoss]), sum = bench.to_host(result[kSum]);
    bench.verdict(
        "cross_entropy of a wrong target",
        std::isnan(loss.as<float>()[0]) && std::isfinite(loss.as<float>()[1]) && std::isnan(*sum.as<double>()),
        fmt::format("the loss is {}, the sum {}", loss.as<float>()[0], *sum.as<double>()));
  });
}

}  // namespace

void check_blocks(Bench& bench) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const float clamp : {0.0f, 3.0f}) {
      check_swiglu(bench, dtype, 3, 520, clamp);
      check_swiglu(bench, dtype, 5, 33, clamp);
    }
    check_swiglu_of_codes(bench, dtype, ScaleKind::e8m0);
    check_loss(bench, {dtype, dtype, 5, 2600});
    check_loss(bench, {dtype, DType::bf16, 4, 37});
    check_loss(bench, {dtype, dtype, 37, 70, true});
  }
  check_loss(bench, {DType::f32, DType::bf16, 3, 4200});
  check_swiglu_of_codes(bench, DType::f32, ScaleKind::f32);
  check_wrong_target(bench);
}

}  // namespace shoestring::cuda_compare
