// Times the CUDA rows of quantise, RMSNorm and GEMM at the sizes of real models.
#include <algorithm>
#include <functional>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/event.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "kernels/rms_norm.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring {
namespace {

constexpr int kRepetitions = 21;
constexpr std::int64_t kFlushBytes = std::int64_t{256} << 20;  // five times the L2 of an H100
constexpr double kBf16PerClock = 4096;  // FLOP of a multiprocessor of sm_90 in a clock; FP8: twice

/// Times on one device, with its L2 emptied before each repetition.
class Clock {
 public:
  explicit Clock(Device device)
      : stream(device),
        from_(DType::u8, {kFlushBytes}, device),
        to_(DType::u8, {kFlushBytes}, device),
        properties_(device_properties(device)) {}

  void time(std::string name, double bytes, double flops, double flops_per_clock, const std::function<void()>& body) {
    body();  // the first call chooses variants and algorithms
    std::vector<double> seconds;
    for (int i = 0; i < kRepetitions; ++i) {
      Event begin(stream.device());
      Event end(stream.device());
      copy(to_, from_, stream);
      begin.record(stream);
      body();
      end.record(stream);
      end.synchronize();
      seconds.push_back(begin.seconds_until(end));
    }
    std::nth_element(seconds.begin(), seconds.begin() + kRepetitions / 2, seconds.end());
    const double median = seconds[kRepetitions / 2];
    const double peak = flops_per_clock * properties_.multiprocessors * properties_.clock_hz;
    const double moving = bytes / properties_.memory_bytes_per_second;
    const double computing = flops > 0 ? flops / peak : 0;
    timings.push_back({std::move(name), median, std::max(moving, computing), bytes / median, flops / median});
  }

  Stream stream;
  std::vector<CudaTiming> timings;

 private:
  Tensor from_;
  Tensor to_;
  DeviceProperties properties_;
};

Tensor random_on(Stream& stream, DType dtype, const Shape& shape) {
  const Tensor host = cuda_compare::numbers(dtype, {std::min<std::int64_t>(shape.elements(), 1 << 16)}, 3);
  Tensor tensor(dtype, shape, stream.device());
  const TensorView flat = tensor.view().reshaped({shape.elements()});
  for (std::int64_t at = 0; at < shape.elements(); at += 1 << 16) {
    const std::int64_t count = std::min<std::int64_t>(shape.elements() - at, 1 << 16);
    copy(flat.slice(0, at, count), host.view().slice(0, 0, count), stream);
  }
  stream.synchronize();
  return tensor;
}

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
    rms_norm_input_gradient({.dx = y, .dy = x, .x = x, .gamma = gamma, .rstd = rstd, .stream = clock.stream});
  });
  clock.time("rms_norm weight gradient" + shape, bytes * 2, 0, 0, [&] {
    rms_norm_weight_gradient({.dgamma = dgamma, .dy = x, .x = x, .rstd = rstd, .stream = clock.stream});
  });
}

void time_gemm(Clock& clock, std::int64_t m, std::int64_t n, std::int64_t k) {
  const Device device = clock.stream.device();
  Arena scratch(std::int64_t{32} << 20, device);
  const auto product = [&](TensorView c, const ConstScaledView& a, const ConstScaledView& b, bool accumulate) {
    gemm({.c = c, .a = a, .b = b, .accumulate = accumulate, .scratch = scratch, .stream = clock.stream});
  };
  const Tensor a = random_on(clock.stream, DType::bf16, {m, k});
  const Tensor b = random_on(clock.stream, DType::bf16, {n, k});
  Tensor c(DType::bf16, {m, n}, device);
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const auto values = static_cast<double>(m * k + n * k);
  const auto results = static_cast<double>(m * n);
  const std::string shape = fmt::format(" [{}, {}, {}]", m, n, k);
  clock.time("gemm bf16" + shape, values * 2 + results * 2, flops, kBf16PerClock,
             [&] { product(c, unscaled(a), unscaled(b), false); });
  Tensor a8(DType::e4m3, {m, k}, device);
  Tensor b8(DType::e4m3, {n, k}, device);
  Tensor a_scales(DType::f32, {k / 128, m}, device);
  Tensor b_scales(DType::f32, {k / 128, n}, device);
  Tensor b_blocks(DType::f32, {n / 128, (k / 128 + 3) / 4 * 4}, device);
  const ScaledView left{a8, a_scales.view().transposed(), kRowTile128};
  const ScaledView right{b8, b_blocks.view().slice(1, 0, k / 128), kBlock128};
  const ScaledView right_tiles{b8, b_scales.view().transposed(), kRowTile128};
  quantize({.x = a, .row_tiles = left, .stream = clock.stream});
  quantize({.x = b, .row_tiles = right, .stream = clock.stream});
  clock.time("gemm fp8 1x128 by 128x128" + shape, values + results * 2, flops, 2 * kBf16PerClock,
             [&] { product(c, left, right, false); });
  quantize({.x = b, .row_tiles = right_tiles, .stream = clock.stream});
  Tensor gradient(DType::f32, {m, n}, device);
  clock.time("gemm fp8 1x128 by 1x128 into f32" + shape, values + results * 8, flops, 2 * kBf16PerClock,
             [&] { product(gradient, left, right_tiles, true); });
}

}  // namespace

std::vector<CudaTiming> time_cuda_ops(Device device) {
  Clock clock(device);
  time_quantize(clock, 4096, 7168);
  time_quantize(clock, 32768, 2048);
  time_rms_norm(clock, 8192, 4096);
  time_rms_norm(clock, 131072, 128);
  for (const auto& [m, n, k] : {std::tuple<std::int64_t, std::int64_t, std::int64_t>{4096, 4096, 4096},
                                {4096, 7168, 2048},
                                {4096, 4096, 7168},
                                {4096, 7168, 16384}}) {
    time_gemm(clock, m, n, k);
  }
  return std::move(clock.timings);
}

}  // namespace shoestring
