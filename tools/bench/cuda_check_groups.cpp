// Products of experts in FP8 on a CUDA device against the CPU's, over the same bytes: rows that begin at multiples for
// each expert, one of them without rows.
#include <cmath>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantize.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr std::int64_t kDeviceScratchBytes = std::int64_t{32} << 20;
constexpr double kByteError = 0x1p-11;  // of FP8 units, as in cuda_check_products.cpp
constexpr std::int64_t kExperts = 4, kN = 128, kK = 272;
constexpr std::int64_t kOffsets[] = {0, 48, 48, 64, 240};
constexpr std::int64_t kRows = 240;

/// E4M3 codes on both sides. The matrix [rows, columns] lies as given, or turned, and so do its scales.
struct Codes {
  Tensor values[2], scales[2];  ///< here, and on the device
  Granularity granularity{};
  bool turned_values = false, turned_scales = false;
  std::int64_t scale_columns = 0;

  ConstScaledView view(bool there) const {
    const ConstTensorView v = values[there], s = scales[there];
    return {turned_values ? v.transposed() : v, (turned_scales ? s.transposed() : s).slice(1, 0, scale_columns),
            granularity};
  }
};

struct CodesSpec {
  std::int64_t rows, columns;
  Granularity granularity;
  std::span<const std::int64_t> segments;
  bool turned_values, turned_scales;
  std::int64_t line;  ///< scales of a row fill a multiple of it
  std::uint32_t numbers;
};

Codes codes_of(Bench& bench, const CodesSpec& spec) {
  Codes codes;
  const Shape tiles = tile_scales_shape(spec.rows, spec.columns, spec.granularity, spec.segments);
  const auto turn = [](bool turned, Shape shape) { return turned ? Shape{shape[1], shape[0]} : shape; };
  codes.granularity = spec.granularity;
  codes.turned_values = spec.turned_values;
  codes.turned_scales = spec.turned_scales;
  codes.scale_columns = tiles[1];
  codes.values[0] = Tensor(DType::e4m3, turn(spec.turned_values, {spec.rows, spec.columns}));
  const std::int64_t lines = (tiles[1] + spec.line - 1) / spec.line * spec.line;
  codes.scales[0] = Tensor(DType::f32, turn(spec.turned_scales, {tiles[0], lines}));
  const Tensor x = numbers(DType::bf16, {spec.rows, spec.columns}, spec.numbers);
  const auto writable = [](const ConstTensorView& view, Tensor& tensor) {
    return TensorView{tensor.view().data, view.shape, view.strides, view.dtype, {}};
  };
  const ConstScaledView view = codes.view(false);
  const ScaledView to{writable(view.values, codes.values[0]), writable(view.scales, codes.scales[0]), spec.granularity};
  const bool tall = spec.granularity == kColumnTile128;
  quantize({.x = x,
            .row_tiles = tall ? ScaledView{} : to,
            .column_tiles = tall ? to : ScaledView{},
            .segments = spec.segments,
            .stream = bench.cpu});
  codes.values[1] = bench.to_device(codes.values[0]);
  codes.scales[1] = bench.to_device(codes.scales[0]);
  return codes;
}

/// |codes| in plain singles.
Tensor magnitudes(Bench& bench, const Codes& codes, std::span<const std::int64_t> segments) {
  const ConstScaledView view = codes.view(false);
  Tensor out(DType::f32, view.values.shape);
  dequantize({.y = out, .x = view, .segments = segments, .stream = bench.cpu});
  for (std::int64_t i = 0; i < out.view().elements(); ++i) out.as<float>()[i] = std::abs(out.as<float>()[i]);
  return out;
}

Arena scratch_on(const Stream& stream, std::int64_t bytes) {
  return {bytes + (stream.device().kind == DeviceKind::cpu ? 0 : kDeviceScratchBytes), stream.device()};
}
int workers_of(const Stream& stream) { return stream.device().kind == DeviceKind::cpu ? stream.workers().count() : 1; }

void multiply(TensorView c, const ConstScaledView& a, const ConstScaledView& b, Stream& stream) {
  Arena scratch = scratch_on(stream, grouped_gemm_scratch_bytes(kRows, kN, kK, kExperts, workers_of(stream), false));
  grouped_gemm({.c = c, .a = a, .b = b, .offsets = kOffsets, .scratch = scratch, .stream = stream});
  stream.synchronize();
}

void multiply_weights(TensorView c, const ConstScaledView& a, const ConstScaledView& b, Stream& stream) {
  Arena scratch = scratch_on(stream, grouped_weight_gemm_scratch_bytes(kRows, kN, kK, kExperts, workers_of(stream)));
  grouped_weight_gemm({.c = c, .a = a, .b = b, .offsets = kOffsets, .scratch = scratch, .stream = stream});
  stream.synchronize();
}

using Multiply = void (*)(TensorView c, const ConstScaledView& a, const ConstScaledView& b, Stream& stream);

void check(Bench& bench, const std::string& name, const Shape& shape, Multiply product, const CodesSpec& a_spec,
           const CodesSpec& b_spec) {
  bench.part(name, [&] {
    const Codes a = codes_of(bench, a_spec), b = codes_of(bench, b_spec);
    Tensor expected(DType::f32, shape), terms(DType::f32, shape), there(DType::f32, shape, bench.device());
    product(expected, a.view(false), b.view(false), bench.cpu);
    product(there, a.view(true), b.view(true), bench.cuda);
    product(terms, unscaled(magnitudes(bench, a, a_spec.segments)), unscaled(magnitudes(bench, b, b_spec.segments)),
            bench.cpu);
    std::vector<double> magnitude;
    for (std::int64_t i = 0; i < shape.elements(); ++i) magnitude.push_back(value(terms, i));
    const double worst = worst_error(bench.to_host(there), expected, sum_error(kRows + kK) + kByteError, magnitude);
    bench.verdict(name, worst <= 1, fmt::format("worst error {:.3f} of its bound", worst));
  });
}

}  // namespace

void check_groups(Bench& bench) {
  const CodesSpec rows{kRows, kK, kRowTile128, {}, false, true, 1, 41};  // scales of all rows stand together
  check(bench, "grouped_gemm e4m3, 1x128 by 128x128", {kRows, kN}, multiply, rows,
        {kExperts * kN, kK, kBlock128, {}, false, false, 4, 42});
  check(bench, "grouped_gemm e4m3, one scale each", {kRows, kN}, multiply,
        {kRows, kK, kPerTensor, {}, false, false, 1, 43}, {kExperts * kN, kK, kPerTensor, {}, false, false, 1, 44});
  check(bench, "grouped_weight_gemm e4m3, 128x1", {kExperts * kN, kK}, multiply_weights,
        {kRows, kN, kColumnTile128, kOffsets, true, false, 1, 45},
        {kRows, kK, kColumnTile128, kOffsets, true, false, 1, 46});
}

}  // namespace shoestring::cuda_compare
