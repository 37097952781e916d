// Quantise, dequantise and RMSNorm on a CUDA device against the CPU.
#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/quantize.h"
#include "kernels/rms_norm.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr Granularity kNone{-1, -1};

struct QuantizeCase {
  DType input = DType::f32;
  DType payload = DType::e4m3;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  Granularity row_tiles = kRowTile128;
  Granularity column_tiles = kNone;
  ScaleKind kind = ScaleKind::f32;
  bool transposed = false;
  bool given = false;
  std::vector<std::int64_t> segments{};
  bool rows_transposed = false;  ///< the row tiles' codes too
};

/// The outputs of one call on one device.
struct QuantizeOutputs {
  Tensor rows;
  Tensor row_scales;
  Tensor columns;
  Tensor column_scales;

  explicit QuantizeOutputs(const QuantizeCase& c) {
    const DType scale = c.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
    if (c.row_tiles.rows >= 0) {
      rows = poisoned(c.payload, c.rows_transposed ? Shape{c.columns, c.rows} : Shape{c.rows, c.columns});
      row_scales = poisoned(scale, tile_scales_shape(c.rows, c.columns, c.row_tiles, c.segments));
    }
    if (c.column_tiles.rows >= 0) {
      columns = poisoned(c.payload, c.transposed ? Shape{c.columns, c.rows} : Shape{c.rows, c.columns});
      column_scales = poisoned(scale, tile_scales_shape(c.rows, c.columns, c.column_tiles, c.segments));
    }
  }
  void move_to_device(Bench& bench) {
    for (Tensor* tensor : {&rows, &row_scales, &columns, &column_scales}) {
      if (!tensor->empty()) *tensor = bench.to_device(*tensor);
    }
  }
  void run(const QuantizeCase& c, ConstTensorView x, QuantizeCounts* counts, Stream& stream) {
    QuantizeArgs args{.x = x,
                      .scale_kind = c.kind,
                      .segments = c.segments,
                      .scales_given = c.given,
                      .counts = counts,
                      .stream = stream};
    if (!rows.empty()) {
      args.row_tiles = {c.rows_transposed ? rows.view().transposed() : rows.view(), row_scales, c.row_tiles};
    }
    if (!columns.empty()) {
      args.column_tiles = {c.transposed ? columns.view().transposed() : columns.view(), column_scales, c.column_tiles};
    }
    quantize(args);
  }
};

std::string describe(const QuantizeCase& c) {
  return fmt::format("quantize {} to {} [{}, {}] {}x{} + {}x{} kind {}{}{}{}{}", name(c.input), name(c.payload), c.rows,
                     c.columns, c.row_tiles.rows, c.row_tiles.columns, c.column_tiles.rows, c.column_tiles.columns,
                     static_cast<int>(c.kind), c.transposed ? " transposed" : "", c.given ? " given scales" : "",
                     c.segments.empty() ? "" : " segments", c.rows_transposed ? " rows transposed" : "");
}

/// What differs between the two sides; empty when nothing does.
std::string quantize_difference(Bench& bench, const QuantizeCase& c, const Tensor& x) {
  QuantizeOutputs host(c);
  QuantizeOutputs device(c);
  device.move_to_device(bench);
  if (c.given) {
    for (std::int64_t i = 0; i < host.row_scales.view().elements(); ++i) host.row_scales.as<float>()[i] = 0.01f;
    copy(device.row_scales, host.row_scales, bench.cuda);
  }
  QuantizeCounts expected;
  host.run(c, x, &expected, bench.cpu);
  const Tensor device_x = bench.to_device(x);
  const Storage pinned = Storage::pinned(sizeof(QuantizeCounts));
  auto* counts = new (pinned.data()) QuantizeCounts;
  device.run(c, device_x, counts, bench.cuda);
  bench.cuda.synchronize();
  std::string detail;
  for (const auto& [ours, theirs, what] : {std::tuple{&device.rows, &host.rows, "row codes"},
                                           std::tuple{&device.row_scales, &host.row_scales, "row scales"},
                                           std::tuple{&device.columns, &host.columns, "column codes"},
                                           std::tuple{&device.column_scales, &host.column_scales, "column scales"}}) {
    if (theirs->empty()) continue;
    const std::string text = difference(bench.to_host(*ours), *theirs);
    if (!text.empty()) detail += fmt::format("{}: {}", what, text);
  }
  if ((counts->elements != expected.elements || counts->saturated != expected.saturated ||
       counts->underflowed != expected.underflowed || counts->non_finite != expected.non_finite ||
       counts->amax != expected.amax)) {
    detail += fmt::format("counts {} {} {} {} {} instead of {} {} {} {} {}", counts->elements, counts->saturated,
                          counts->underflowed, counts->non_finite, counts->amax, expected.elements, expected.saturated,
                          expected.underflowed, expected.non_finite, expected.amax);
  }
  return detail;
}

void check_quantize(Bench& bench, const QuantizeCase& c, const Tensor& x) {
  const std::string name = describe(c);
  bench.part(name, [&] {
    const std::string detail = quantize_difference(bench, c, x);
    bench.verdict(name, detail.empty(), detail);
  });
}

void check_quantize(Bench& bench) {
  const std::vector<std::pair<Granularity, Granularity>> outputs = {
      {kRowTile128, kNone},         {kRowTile32, kNone},    {kPerTensor, kNone},           {kBlock128, kNone},
      {kNone, kColumnTile128},      {kNone, kColumnTile32}, {kRowTile128, kColumnTile128}, {kRowTile32, kColumnTile32},
      {kPerTensor, kColumnTile128}, {kBlock128, kBlock128}, {kBlock128, kColumnTile128}};
  const std::vector<std::int64_t> ragged = {0, 0, 1, 130, 130, 259, 300};
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {33, 130}, {300, 256}, {256, 512}}) {
    for (const DType input : {DType::f32, DType::bf16}) {
      if (bench.quick && (rows == 256 || (rows == 300) == (input == DType::f32))) continue;
      const Tensor x = numbers(input, {rows, columns}, static_cast<std::uint32_t>(rows), true);
      for (const auto& [by_row, by_column] : outputs) {
        for (const ScaleKind kind : {ScaleKind::f32, ScaleKind::power_of_two, ScaleKind::e8m0}) {
          if (kind == ScaleKind::e8m0 && by_row == kPerTensor) continue;
          for (const bool transposed : {false, true}) {
            if (transposed && by_column == kNone) continue;
            QuantizeCase c{input,  kind == ScaleKind::power_of_two ? DType::e5m2 : DType::e4m3,
                           rows,   columns,
                           by_row, by_column,
                           kind,   transposed,
                           false,  {}};
            check_quantize(bench, c, x);
            if (rows == 300) {
              c.segments = ragged;
              check_quantize(bench, c, x);
            }
          }
        }
        if (by_row != kNone && by_column == kNone) {
          check_quantize(bench, {input, DType::e4m3, rows, columns, by_row, kNone, ScaleKind::f32, false, true, {}}, x);
        }
        if (by_row == kPerTensor || by_row == kBlock128) {  // what a sum over rows reads of a whole matrix
          QuantizeCase c{input,          DType::e4m3,        rows,  columns, by_row, by_column,
                         ScaleKind::f32, by_column != kNone, false, {},      true};
          check_quantize(bench, c, x);
          c.given = by_column == kNone;
          if (c.given) check_quantize(bench, c, x);
        }
      }
    }
  }
}

void check_dequantize(Bench& bench, const Tensor& codes, const Tensor& scales, Granularity tile, DType output) {
  const std::string title =
      fmt::format("dequantize {} to {} {}x{}", name(codes.dtype()), name(output), tile.rows, tile.columns);
  bench.part(title, [&] {
    Tensor expected(output, codes.shape());
    dequantize({.y = expected, .x = ConstScaledView{codes, scales, tile}, .stream = bench.cpu});
    const Tensor device_codes = bench.to_device(codes);
    const Tensor device_scales = bench.to_device(scales);
    Tensor y(output, codes.shape(), bench.device());
    dequantize({.y = y, .x = ConstScaledView{device_codes, device_scales, tile}, .stream = bench.cuda});
    const std::string detail = difference(bench.to_host(y), expected);
    bench.verdict(title, detail.empty(), detail);
  });
}

void check_dequantize(Bench& bench) {
  for (const DType payload : {DType::e4m3, DType::e5m2}) {
    Tensor codes(payload, {256, 256});
    for (std::int64_t i = 0; i < 256 * 256; ++i)
      codes.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
    for (const Granularity tile : {kRowTile128, kColumnTile128, kBlock128, kPerTensor, kRowTile32}) {
      Tensor scales(DType::f32, tile_scales_shape(256, 256, tile));
      for (std::int64_t i = 0; i < scales.view().elements(); ++i) {
        scales.as<float>()[i] = 0.37f + 0.01f * static_cast<float>(i % 90);
      }
      for (const DType output : {DType::f32, DType::bf16}) check_dequantize(bench, codes, scales, tile, output);
    }
  }
}

void check_rms_norm(Bench& bench, DType dtype, std::int64_t rows, std::int64_t width) {
  const Tensor x = numbers(dtype, {rows, width}, 1);
  const Tensor residual = numbers(dtype, {rows, width}, 2);
  const Tensor dy = numbers(dtype, {rows, width}, 3);
  const Tensor gamma = numbers(DType::f32, {width}, 4);
  struct Results {
    Tensor y, rstd, sum, dx, dgamma;
  };
  const auto run = [&](const Tensor& x_in, const Tensor& residual_in, const Tensor& dy_in, const Tensor& gamma_in,
                       Stream& stream) {
    const Device d = stream.device();
    Results r{Tensor(dtype, {rows, width}, d), Tensor(DType::f32, {rows}, d), Tensor(dtype, {rows, width}, d),
              Tensor(dtype, {rows, width}, d), Tensor(DType::f32, {width}, d)};
    rms_norm_forward({.y = r.y,
                      .rstd = r.rstd,
                      .x = x_in,
                      .gamma = gamma_in,
                      .residual = residual_in,
                      .sum = r.sum,
                      .eps = 1e-6f,
                      .stream = stream});
    rms_norm_input_gradient({.dx = r.dx, .dy = dy_in, .x = r.sum, .gamma = gamma_in, .rstd = r.rstd, .stream = stream});
    rms_norm_weight_gradient({.dgamma = r.dgamma, .dy = dy_in, .x = r.sum, .rstd = r.rstd, .stream = stream});
    stream.synchronize();  // the callers' inputs may be temporaries
    return r;
  };
  const Results expected = run(x, residual, dy, gamma, bench.cpu);
  const Results device =
      run(bench.to_device(x), bench.to_device(residual), bench.to_device(dy), bench.to_device(gamma), bench.cuda);
  double largest = 0;  // magnitudes: an upper bound of the terms behind any element
  for (std::int64_t i = 0; i < rows * width; ++i) largest = std::max(largest, std::abs(value(expected.dx, i)));
  double weight = 0;
  for (std::int64_t i = 0; i < rows * width; ++i) {
    weight = std::max(weight, std::abs(value(dy, i) * value(expected.sum, i)) * value(expected.rstd, i / width));
  }
  const double terms = sum_error(width);
  for (const auto& [ours, theirs, what, magnitude, length] :
       {std::tuple{&device.sum, &expected.sum, "sum", 0.0, width},
        std::tuple{&device.rstd, &expected.rstd, "rstd", 1.0, width},
        std::tuple{&device.y, &expected.y, "y", 100.0, width},
        std::tuple{&device.dx, &expected.dx, "dx", largest, width},
        std::tuple{&device.dgamma, &expected.dgamma, "dgamma", weight * std::sqrt(double(rows)), rows}}) {
    const double worst =
        worst_error(bench.to_host(*ours), *theirs, length == width ? terms : sum_error(length), {magnitude});
    bench.verdict(fmt::format("rms_norm {} {} [{}, {}]", what, name(dtype), rows, width), worst <= 1,
                  fmt::format("worst error {:.3f} of its bound", worst));
  }
}

}  // namespace

void check_moves(Bench& bench) {
  bench.part("quantize", [&] { check_quantize(bench); });
  bench.part("dequantize", [&] { check_dequantize(bench); });
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [rows, width] : {std::pair<std::int64_t, std::int64_t>{300, 128}, {130, 1000}, {257, 4096}}) {
      if (bench.quick && rows * width > 1000000) continue;
      bench.part(fmt::format("rms_norm {} [{}, {}]", name(dtype), rows, width),
                 [&, n = rows, w = width] { check_rms_norm(bench, dtype, n, w); });
    }
  }
}

}  // namespace shoestring::cuda_compare
