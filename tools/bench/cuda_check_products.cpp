// GEMM on a CUDA device against the CPU, over the same bytes.
#include <cmath>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

/// An operand on both sides; `turned` swaps how it lies in memory, not what it is.
struct Operand {
  Tensor host;
  Tensor device;
  Tensor host_scales;
  Tensor device_scales;
  Granularity granularity{};
  bool turned = false;

  ConstScaledView view(bool on_device) const {
    const Tensor& values = on_device ? device : host;
    const Tensor& scales = on_device ? device_scales : host_scales;
    const ConstTensorView matrix = turned ? values.view().transposed() : values.view();
    if (scales.empty()) return unscaled(matrix);
    const std::int64_t blocks = (matrix.shape[1] + 127) / 128;
    if (granularity == kRowTile128) return {matrix, scales.view().transposed(), granularity};
    if (granularity == kBlock128) return {matrix, scales.view().slice(1, 0, blocks), granularity};
    return {matrix, scales, granularity};
  }
};

Operand plain(Bench& bench, DType dtype, std::int64_t rows, std::int64_t k, bool turned, std::uint32_t stream) {
  Operand operand;
  operand.host = numbers(dtype, turned ? Shape{k, rows} : Shape{rows, k}, stream);
  operand.device = bench.to_device(operand.host);
  operand.turned = turned;
  return operand;
}

/// An E4M3 operand with its scales where cuBLASLt wants them (gemm_cublaslt.h).
Operand scaled(Bench& bench, std::int64_t rows, std::int64_t k, Granularity granularity, std::uint32_t stream) {
  const std::int64_t blocks = (k + 127) / 128;
  Operand operand;
  operand.granularity = granularity;
  operand.host = Tensor(DType::e4m3, {rows, k});
  operand.host_scales = Tensor(DType::f32, granularity == kRowTile128 ? Shape{blocks, rows}
                                           : granularity == kBlock128 ? Shape{(rows + 127) / 128, (blocks + 3) / 4 * 4}
                                                                      : Shape{1, 1});
  const Tensor x = numbers(DType::bf16, {rows, k}, stream);
  const ConstTensorView scales = operand.view(false).scales;
  const TensorView writable{operand.host_scales.view().data, scales.shape, scales.strides, scales.dtype, {}};
  quantize({.x = x, .row_tiles = {operand.host, writable, granularity}, .stream = bench.cpu});
  operand.device = bench.to_device(operand.host);
  operand.device_scales = bench.to_device(operand.host_scales);
  return operand;
}

void multiply(TensorView c, const ConstScaledView& a, const ConstScaledView& b, bool accumulate, ConstTensorView bias,
              Stream& stream) {
  const bool cpu = stream.device().kind == DeviceKind::cpu;
  const std::int64_t bytes =
      cpu ? gemm_scratch_bytes(c.shape[0], c.shape[1], a.values.shape[1], stream.workers().count(), false)
          : std::int64_t{32} << 20;
  Arena scratch(bytes, stream.device());
  gemm({.c = c, .a = a, .b = b, .accumulate = accumulate, .bias = bias, .scratch = scratch, .stream = stream});
  stream.synchronize();
}

/// |operand| in plain singles.
Tensor magnitudes(Bench& bench, const Operand& operand) {
  const ConstScaledView view = operand.view(false);
  Tensor out(DType::f32, view.values.shape);
  if (view.scaled()) {
    dequantize({.y = out, .x = view, .stream = bench.cpu});
  } else {
    for (std::int64_t r = 0; r < out.shape()[0]; ++r) {
      for (std::int64_t k = 0; k < out.shape()[1]; ++k) {
        const std::int64_t at = r * view.values.strides[0] + k * view.values.strides[1];
        out.as<float>()[r * out.shape()[1] + k] = static_cast<float>(value(operand.host, at));
      }
    }
  }
  for (std::int64_t i = 0; i < out.view().elements(); ++i) out.as<float>()[i] = std::abs(out.as<float>()[i]);
  return out;
}

struct Product {
  std::string name;
  DType output = DType::f32;
  bool accumulate = false;
  bool bias = false;
  /// Error of one sum per unit of magnitude beyond FP32's own: FP8 tensor cores of sm_90 keep about 14 bits, cut off
  /// at each of the four steps of 32 in a block of 128: 4 * 2^-13.
  double accumulator_error = 0;
};

void check_product(Bench& bench, const Product& product, const Operand& a, const Operand& b) {
  const std::int64_t m = a.view(false).values.shape[0];
  const std::int64_t n = b.view(false).values.shape[0];
  const std::int64_t k = a.view(false).values.shape[1];
  const Tensor start = numbers(product.output, {m, n}, 31);
  const Tensor bias = product.bias ? numbers(product.output, {n}, 32) : Tensor();
  const Tensor device_bias = product.bias ? bench.to_device(bias) : Tensor();
  Tensor expected(product.output, {m, n});
  copy(expected, start, bench.cpu);
  multiply(expected, a.view(false), b.view(false), product.accumulate, bias, bench.cpu);
  Tensor device = bench.to_device(start);
  multiply(device, a.view(true), b.view(true), product.accumulate, device_bias, bench.cuda);
  Tensor terms(DType::f32, {m, n});
  multiply(terms, unscaled(magnitudes(bench, a)), unscaled(magnitudes(bench, b)), false, {}, bench.cpu);
  std::vector<double> magnitude;
  for (std::int64_t i = 0; i < m * n; ++i) {
    magnitude.push_back(value(terms, i) + (product.accumulate ? std::abs(value(start, i)) : 0) +
                        (product.bias ? std::abs(value(bias, i % n)) : 0));
  }
  const double sum = sum_error(k) + product.accumulator_error;
  const double worst = worst_error(bench.to_host(device), expected, sum, magnitude);
  bench.verdict(fmt::format("gemm {} [{}, {}, {}]", product.name, m, n, k), worst <= 1,
                fmt::format("worst error {:.3f} of its bound", worst));
}

/// The comparison itself is tried: a scale wrong by two percent must be seen.
void check_damage(Bench& bench) {
  const Operand a = scaled(bench, 128, 256, kRowTile128, 21);
  Operand b = scaled(bench, 128, 256, kBlock128, 22);
  const std::size_t before = bench.checks.size();
  b.host_scales.as<float>()[0] *= 1.02f;
  check_product(bench, {.name = "damaged", .accumulator_error = 0x1p-11}, a, b);
  CudaCheck& check = bench.checks.at(before);
  check.name = "gemm: a scale wrong by 2% is seen";
  check.passed = !check.passed;
}

}  // namespace

void check_products(Bench& bench) {
  for (const bool a_turned : {false, true}) {
    for (const bool b_turned : {false, true}) {
      const std::string lie = fmt::format("{}{}", a_turned ? "T" : "N", b_turned ? "N" : "T");
      const Operand a = plain(bench, DType::bf16, 256, 512, a_turned, 1);
      const Operand b = plain(bench, DType::bf16, 384, 512, b_turned, 2);
      check_product(bench, {.name = "bf16 " + lie, .output = DType::bf16}, a, b);
      check_product(bench, {.name = "bf16 into f32 " + lie, .accumulate = true}, a, b);
    }
  }
  check_product(bench, {.name = "bf16 bias", .output = DType::bf16, .bias = true},
                plain(bench, DType::bf16, 64, 256, false, 3), plain(bench, DType::bf16, 128, 256, false, 4));
  check_product(bench, {.name = "f32"}, plain(bench, DType::f32, 200, 300, false, 5),
                plain(bench, DType::f32, 100, 300, false, 6));
  const Product byte{.name = "", .accumulator_error = 0x1p-11};
  for (const auto& [by_row, by_column, name] : {std::tuple{kRowTile128, kBlock128, "fp8 1x128 by 128x128"},
                                                std::tuple{kRowTile128, kRowTile128, "fp8 1x128 by 1x128"},
                                                std::tuple{kPerTensor, kPerTensor, "fp8 per tensor"}}) {
    const Operand a = scaled(bench, 256, 1024, by_row, 7);
    const Operand b = scaled(bench, 384, 1024, by_column, 8);
    for (const bool accumulate : {false, true}) {
      Product product = byte;
      product.name = std::string(name) + (accumulate ? " accumulate" : "");
      product.accumulate = accumulate;
      check_product(bench, product, a, b);
    }
    Product rounded = byte;
    rounded.name = std::string(name) + " to bf16";
    rounded.output = DType::bf16;
    check_product(bench, rounded, a, b);
  }
  check_damage(bench);
}

}  // namespace shoestring::cuda_compare
