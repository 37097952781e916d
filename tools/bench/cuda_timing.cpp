// Times the CUDA rows of quantise, RMSNorm, GEMM and products of experts at the sizes of real models.
#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantize.h"
#include "kernels/rms_norm.h"
#include "tools/bench/cuda_clock.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring {
namespace {

constexpr std::int64_t kFlushBytes = std::int64_t{256} << 20;  // five times the L2 of an H100
constexpr double kBf16PerClock = 4096;  // FLOP of a multiprocessor of sm_90 in a clock; FP8: twice

using cuda_compare::Clock;
using cuda_compare::random_on;

void time_quantize(Clock& clock, std::int64_t rows, std::int64_t columns) {
  const Device device = clock.stream.device();
  const Tensor x = random_on(clock.stream, DType::bf16, {rows, columns});
  Tensor codes(DType::e4m3, {rows, columns}, device);
  Tensor turned(DType::e4m3, {columns, rows}, device);
  Tensor tiles(DType::f32, {columns / 128, rows}, device);
  Tensor tall(DType::f32, {rows / 128, columns}, device);
  Tensor blocks(DType::f32, {rows / 128, columns / 128}, device);
  const ScaledView by_row{codes, tiles.view().transposed(), kRowTile128};
  const ScaledView by_column{turned.view().transposed(), tall, kColumnTile128};
  const auto elements = static_cast<double>(rows * columns);
  const std::string shape = fmt::format(" [{}, {}]", rows, columns);
  clock.time("quantize bf16 1x128" + shape, elements * 3, 0, 0,
             [&] { quantize({.x = x, .row_tiles = by_row, .stream = clock.stream}); });
  clock.time("quantize bf16 1x128 and 128x1 transposed" + shape, elements * 4, 0, 0, [&] {
    quantize({.x = x,
              .row_tiles = by_row,
              .column_tiles = by_column,
              .scale_kind = ScaleKind::power_of_two,
              .stream = clock.stream});
  });
  clock.time("quantize bf16 128x128" + shape, elements * 3, 0, 0, [&] {
    quantize({.x = x, .row_tiles = {codes, blocks, kBlock128}, .stream = clock.stream});
  });
  Tensor y(DType::bf16, {rows, columns}, device);
  clock.time("dequantize 1x128 to bf16" + shape, elements * 3, 0, 0,
             [&] { dequantize({.y = y, .x = by_row, .stream = clock.stream}); });
}

void time_rms_norm(Clock& clock, std::int64_t rows, std::int64_t width) {
  const Device device = clock.stream.device();
  const Tensor x = random_on(clock.stream, DType::bf16, {rows, width});
  const Tensor dy = random_on(clock.stream, DType::bf16, {rows, width});
  const Tensor gamma = random_on(clock.stream, DType::f32, {width});
  Tensor y(DType::bf16, {rows, width}, device);
  Tensor rstd(DType::f32, {rows}, device);
  Tensor dgamma(DType::f32, {width}, device);
  const auto bytes = static_cast<double>(rows * width * 2);
  const std::string shape = fmt::format(" bf16 [{}, {}]", rows, width);
  clock.time("rms_norm forward" + shape, bytes * 2, 0, 0, [&] {
    rms_norm_forward({.y = y, .rstd = rstd, .x = x, .gamma = gamma, .sum = {}, .eps = 1e-6f, .stream = clock.stream});
  });
  clock.time("rms_norm input gradient" + shape, bytes * 3, 0, 0, [&] {
    rms_norm_input_gradient({.dx = y, .dy = dy, .x = x, .gamma = gamma, .rstd = rstd, .stream = clock.stream});
  });
  clock.time("rms_norm weight gradient" + shape, bytes * 2, 0, 0, [&] {
    rms_norm_weight_gradient({.dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .stream = clock.stream});
  });
}

/// A product [m, n, k] with all it needs but its operands.
struct Product {
  Product(Clock& clock, const Shape& extents)
      : m(extents[0]),
        n(extents[1]),
        k(extents[2]),
        flops(2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k)),
        values(static_cast<double>(m * k + n * k)),
        results(static_cast<double>(m * n)),
        shape(fmt::format(" [{}, {}, {}]", m, n, k)),
        scratch(std::int64_t{32} << 20, clock.stream.device()),
        stream(clock.stream) {}

  void run(TensorView c, const ConstScaledView& a, const ConstScaledView& b, bool accumulate) {
    gemm({.c = c, .a = a, .b = b, .accumulate = accumulate, .scratch = scratch, .stream = stream});
  }

  std::int64_t m, n, k;
  double flops;
  double values;   ///< elements of both operands
  double results;  ///< elements of c
  std::string shape;
  Arena scratch;
  Stream& stream;
};

void time_bf16_gemm(Clock& clock, const Shape& extents) {
  Product p(clock, extents);
  const Tensor a = random_on(clock.stream, DType::bf16, {p.m, p.k});
  const Tensor b = random_on(clock.stream, DType::bf16, {p.n, p.k});
  Tensor c(DType::bf16, {p.m, p.n}, clock.stream.device());
  clock.time("gemm bf16" + p.shape, p.values * 2 + p.results * 2, p.flops, kBf16PerClock,
             [&] { p.run(c, unscaled(a), unscaled(b), false); });
}

/// E4M3 with scales where cuBLASLt wants them (gemm_cublaslt.h).
void time_fp8_gemm(Clock& clock, const Shape& extents) {
  Product p(clock, extents);
  const Device device = clock.stream.device();
  const std::int64_t blocks = p.k / 128;
  const Tensor a = random_on(clock.stream, DType::bf16, {p.m, p.k});
  const Tensor b = random_on(clock.stream, DType::bf16, {p.n, p.k});
  Tensor a8(DType::e4m3, {p.m, p.k}, device);
  Tensor b8(DType::e4m3, {p.n, p.k}, device);
  Tensor a_scales(DType::f32, {blocks, p.m}, device);
  Tensor b_scales(DType::f32, {blocks, p.n}, device);
  Tensor b_blocks(DType::f32, {p.n / 128, (blocks + 3) / 4 * 4}, device);
  const ScaledView left{a8, a_scales.view().transposed(), kRowTile128};
  const ScaledView right{b8, b_blocks.view().slice(1, 0, blocks), kBlock128};
  const ScaledView right_tiles{b8, b_scales.view().transposed(), kRowTile128};
  Tensor c(DType::bf16, {p.m, p.n}, device);
  Tensor gradient(DType::f32, {p.m, p.n}, device);
  quantize({.x = a, .row_tiles = left, .stream = clock.stream});
  quantize({.x = b, .row_tiles = right, .stream = clock.stream});
  clock.time("gemm fp8 1x128 by 128x128" + p.shape, p.values + p.results * 2, p.flops, 2 * kBf16PerClock,
             [&] { p.run(c, left, right, false); });
  quantize({.x = b, .row_tiles = right_tiles, .stream = clock.stream});
  clock.time("gemm fp8 1x128 by 1x128 into f32" + p.shape, p.values + p.results * 8, p.flops, 2 * kBf16PerClock,
             [&] { p.run(gradient, left, right_tiles, true); });
}

/// Products of `experts` experts over as many rows each, [rows, n, k], in E4M3 by each row that takes them.
void time_experts(Clock& clock, std::int64_t experts, const Shape& extents) {
  Product p(clock, extents);
  const Device device = clock.stream.device();
  const std::int64_t blocks = p.k / 128;
  std::vector<std::int64_t> offsets;
  for (std::int64_t e = 0; e <= experts; ++e) offsets.push_back(p.m / experts * e);
  const Tensor a = random_on(clock.stream, DType::bf16, {p.m, p.k});
  const Tensor b = random_on(clock.stream, DType::bf16, {experts * p.n, p.k});
  Tensor a8(DType::e4m3, {p.m, p.k}, device), b8(DType::e4m3, {experts * p.n, p.k}, device);
  Tensor a_scales(DType::f32, {blocks, p.m}, device);
  Tensor b_scales(DType::f32, {experts * p.n / 128, (blocks + 3) / 4 * 4}, device);
  const ScaledView left{a8, a_scales.view().transposed(), kRowTile128};
  const ScaledView right{b8, b_scales.view().slice(1, 0, blocks), kBlock128};
  quantize({.x = a, .row_tiles = left, .stream = clock.stream});
  quantize({.x = b, .row_tiles = right, .stream = clock.stream});
  Tensor c(DType::bf16, {p.m, p.n}, device);
  Arena scratch(std::int64_t{64} << 20, device);
  const GroupedGemmArgs args{
      .c = c, .a = left, .b = right, .offsets = offsets, .scratch = scratch, .stream = clock.stream};
  const double values = static_cast<double>(p.m * p.k + experts * p.n * p.k);
  for (const Variant<GroupedGemmArgs>& row : grouped_gemm_variants()) {
    if (!row.refuses(args).empty()) continue;
    clock.time(fmt::format("grouped_gemm fp8 1x128 by 128x128, {} experts{}, {}", experts, p.shape, row.name),
               values + p.results * 2, p.flops, 2 * kBf16PerClock, [&] { row.run(args); });
  }
}

void time_all(Clock& clock) {
  for (const Shape& shape : {Shape{4096, 7168}, Shape{32768, 2048}}) {
    clock.part("quantize and dequantize " + shape.to_string(), [&] { time_quantize(clock, shape[0], shape[1]); });
  }
  for (const Shape& shape : {Shape{8192, 4096}, Shape{131072, 128}}) {
    clock.part("rms_norm " + shape.to_string(), [&] { time_rms_norm(clock, shape[0], shape[1]); });
  }
  for (const Shape& extents :
       {Shape{4096, 4096, 4096}, Shape{4096, 7168, 2048}, Shape{4096, 4096, 7168}, Shape{4096, 7168, 16384}}) {
    clock.part("gemm bf16 " + extents.to_string(), [&] { time_bf16_gemm(clock, extents); });
    clock.part("gemm fp8 " + extents.to_string(), [&] { time_fp8_gemm(clock, extents); });
  }
  for (const std::int64_t experts : {8, 64}) {
    clock.part(fmt::format("grouped_gemm of {} experts", experts), [&] {
      time_experts(clock, experts, {32768, 4096, 2048});
    });
  }
  cuda_compare::time_blocks(clock);
}

}  // namespace

std::vector<CudaTiming> time_cuda_ops(Device device, const TimingObserver& observer) {
  try {
    Stream stream(device);
    Clock clock(stream, device_properties(device), kFlushBytes, observer);
    time_all(clock);
    return std::move(clock.timings);
  } catch (const std::exception& error) {  // the clock itself: it takes memory to empty the caches
    CudaTiming missing{.name = "all timings", .error = error.what()};
    if (observer) observer(missing);
    return {std::move(missing)};
  }
}

}  // namespace shoestring
