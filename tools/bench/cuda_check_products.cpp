// GEMM on a CUDA device against the CPU, over the same bytes.
#include <cmath>
#include <functional>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "kernels/quantized_gemm.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

constexpr std::int64_t kDeviceScratchBytes = std::int64_t{32} << 20;

/// FP8 tensor cores of sm_90 keep about 14 bits, cut off at each of the four steps of 32 in a block of 128: 4 * 2^-13.
constexpr double kByteError = 0x1p-11;

/// An operand on both sides; `turned` swaps how it lies in memory, not what it is.
struct Operand {
  Tensor host;
  Tensor device;
  Tensor host_scales;
  Tensor device_scales;
  Granularity granularity{};
  bool turned = false;
  std::int64_t skipped = 0;  ///< columns of k in front, so that the first element is aligned to its own size only

  ConstScaledView view(bool on_device) const {
    const Tensor& values = on_device ? device : host;
    const Tensor& scales = on_device ? device_scales : host_scales;
    const ConstTensorView whole = turned ? values.view().transposed() : values.view();
    const ConstTensorView matrix = whole.slice(1, skipped, whole.shape[1] - skipped);
    if (scales.empty()) return unscaled(matrix);
    const std::int64_t blocks = (matrix.shape[1] + 127) / 128;
    if (granularity == kRowTile128) return {matrix, scales.view().transposed(), granularity};
    if (granularity == kBlock128) return {matrix, scales.view().slice(1, 0, blocks), granularity};
    return {matrix, scales, granularity};
  }
};

Operand plain(Bench& bench, DType dtype, std::int64_t rows, std::int64_t k, bool turned, std::uint32_t stream,
              std::int64_t skipped = 0) {
  Operand operand;
  operand.skipped = skipped;
  operand.host = numbers(dtype, turned ? Shape{k + skipped, rows} : Shape{rows, k + skipped}, stream);
  operand.device = bench.to_device(operand.host);
  operand.turned = turned;
  return operand;
}

/// An E4M3 operand with its scales where cuBLASLt wants them (gemm_cublaslt.h).
Operand scaled(Bench& bench, std::int64_t rows, std::int64_t k, Granularity granularity, std::uint32_t stream,
               ScaleKind kind = ScaleKind::f32) {
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
  quantize({.x = x, .row_tiles = {operand.host, writable, granularity}, .scale_kind = kind, .stream = bench.cpu});
  operand.device = bench.to_device(operand.host);
  operand.device_scales = bench.to_device(operand.host_scales);
  return operand;
}

/// A product into c; operands and bias lie where `stream` works.
using Multiply = std::function<void(TensorView c, ConstTensorView bias, Stream& stream)>;

void multiply(TensorView c, const ConstScaledView& a, const ConstScaledView& b, bool accumulate, ConstTensorView bias,
              Stream& stream) {
  const bool cpu = stream.device().kind == DeviceKind::cpu;
  const std::int64_t bytes =
      cpu ? gemm_scratch_bytes(c.shape[0], c.shape[1], a.values.shape[1], stream.workers().count(), false)
          : kDeviceScratchBytes;
  Arena scratch(bytes, stream.device());
  gemm({.c = c, .a = a, .b = b, .accumulate = accumulate, .bias = bias, .scratch = scratch, .stream = stream});
  stream.synchronize();
}

void quantize_and_multiply(TensorView c, ConstTensorView x, const ConstScaledView& b, ScaleKind kind, bool accumulate,
                           ConstTensorView bias, Stream& stream) {
  const bool cpu = stream.device().kind == DeviceKind::cpu;
  Arena scratch(
      quantized_gemm_scratch_bytes(c.shape[0], c.shape[1], x.shape[1], 0, cpu ? stream.workers().count() : 1, false) +
          (cpu ? 0 : kDeviceScratchBytes),
      stream.device());
  quantized_gemm({.c = c,
                  .x = x,
                  .scale_kind = kind,
                  .b = b,
                  .accumulate = accumulate,
                  .bias = bias,
                  .scratch = scratch,
                  .stream = stream});
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
        const std::int64_t at = r * view.values.strides[0] + (k + operand.skipped) * view.values.strides[1];
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
  std::int64_t gap = 0;          ///< elements between the rows of c
  double accumulator_error = 0;  ///< of one sum per unit of magnitude beyond FP32's own
};

/// The worst error of a product on the device in units of its bound; infinite when the gap of c was written.
double worst_of(Bench& bench, const Product& product, const Operand& a, const Operand& b, const Multiply& on_cpu,
                const Multiply& on_device) {
  const std::int64_t m = a.view(false).values.shape[0];
  const std::int64_t n = b.view(false).values.shape[0];
  const std::int64_t k = a.view(false).values.shape[1];
  const Tensor start = numbers(product.output, {m, n}, 31);
  const Tensor bias = product.bias ? numbers(product.output, {n}, 32) : Tensor();
  const Tensor device_bias = product.bias ? bench.to_device(bias) : Tensor();
  Tensor expected(product.output, {m, n});
  copy(expected, start, bench.cpu);
  on_cpu(expected, bias, bench.cpu);
  Tensor room(product.output, {m, n + product.gap}, bench.device());
  const TensorView device = room.view().slice(1, 0, n);
  copy(device, start, bench.cuda);
  on_device(device, device_bias, bench.cuda);
  Tensor terms(DType::f32, {m, n});
  multiply(terms, unscaled(magnitudes(bench, a)), unscaled(magnitudes(bench, b)), false, {}, bench.cpu);
  std::vector<double> magnitude;
  for (std::int64_t i = 0; i < m * n; ++i) {
    magnitude.push_back(value(terms, i) + (product.accumulate ? std::abs(value(start, i)) : 0) +
                        (product.bias ? std::abs(value(bias, i % n)) : 0));
  }
  const Tensor result = bench.to_host(room);
  for (std::int64_t i = 0; i < result.view().elements(); ++i) {
    if (i % (n + product.gap) >= n && value(result, i) != 0) return HUGE_VAL;
  }
  return worst_error(bench.to_host(device), expected, sum_error(k) + product.accumulator_error, magnitude);
}

double worst_of(Bench& bench, const Product& product, const Operand& a, const Operand& b) {
  const auto on = [&](bool device) {
    return [&, device](TensorView c, ConstTensorView bias, Stream& stream) {
      multiply(c, a.view(device), b.view(device), product.accumulate, bias, stream);
    };
  };
  return worst_of(bench, product, a, b, on(false), on(true));
}

void check_product(Bench& bench, const Product& product, const Operand& a, const Operand& b) {
  const Shape& left = a.view(false).values.shape;
  const std::string name =
      fmt::format("gemm {} [{}, {}, {}]", product.name, left[0], b.view(false).values.shape[0], left[1]);
  bench.part(name, [&] {
    const double worst = worst_of(bench, product, a, b);
    bench.verdict(name, worst <= 1, fmt::format("worst error {:.3f} of its bound", worst));
  });
}

/// The comparison itself is tried: a scale wrong by two percent must be seen.
void check_damage(Bench& bench) {
  const std::string name = "gemm: a scale wrong by 2% is seen";
  bench.part(name, [&] {
    const Operand a = scaled(bench, 128, 256, kRowTile128, 21);
    Operand b = scaled(bench, 128, 256, kBlock128, 22);
    b.host_scales.as<float>()[0] *= 1.02f;
    const double worst = worst_of(bench, {.name = "", .accumulator_error = kByteError}, a, b);
    bench.verdict(name, worst > 1, fmt::format("worst error {:.3f} of its bound", worst));
  });
}

void check_bf16(Bench& bench, bool a_turned, bool b_turned) {
  const std::string lie = fmt::format("{}{}", a_turned ? "T" : "N", b_turned ? "N" : "T");
  bench.part("gemm bf16 " + lie, [&] {
    const Operand a = plain(bench, DType::bf16, 256, 512, a_turned, 1);
    const Operand b = plain(bench, DType::bf16, 384, 512, b_turned, 2);
    check_product(bench, {.name = "bf16 " + lie, .output = DType::bf16}, a, b);
    check_product(bench, {.name = "bf16 into f32 " + lie, .accumulate = true}, a, b);
    const Operand a_off = plain(bench, DType::bf16, 256, 512, a_turned, 1, 3);
    check_product(bench, {.name = "bf16 off alignment " + lie, .output = DType::bf16, .gap = 1}, a_off, b);
  });
}

void check_empty_sums(Bench& bench) {
  bench.part("gemm of nothing", [&] {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Operand a = plain(bench, dtype, 37, 0, false, 9);
      const Operand b = plain(bench, dtype, 40, 0, false, 10);
      const std::string format(name(dtype));
      check_product(bench, {.name = format + " of nothing", .output = dtype, .gap = 5}, a, b);
      check_product(bench, {.name = format + " of nothing, kept", .output = dtype, .accumulate = true, .gap = 5}, a, b);
      check_product(bench, {.name = format + " of nothing, bias", .output = dtype, .bias = true, .gap = 5}, a, b);
    }
  });
}

void check_bytes(Bench& bench, Granularity by_row, Granularity by_column, const std::string& title) {
  bench.part("gemm " + title, [&] {
    const Operand a = scaled(bench, 256, 1024, by_row, 7);
    const Operand b = scaled(bench, 384, 1024, by_column, 8);
    Product product{.name = title, .accumulator_error = kByteError};
    check_product(bench, product, a, b);
    product.accumulate = true;
    product.name = title + " accumulate";
    check_product(bench, product, a, b);
    product.accumulate = false;
    product.output = DType::bf16;
    product.name = title + " to bf16";
    check_product(bench, product, a, b);
    product.bias = true;
    product.name = title + " to bf16, bias";
    check_product(bench, product, a, b);
  });
}

void check_quantized(Bench& bench, ScaleKind kind, const Product& product) {
  const std::string name = "quantized_gemm " + product.name;
  bench.part(name, [&] {
    constexpr std::uint32_t kNumbers = 11;
    const Tensor x = numbers(DType::bf16, {256, 1024}, kNumbers);
    const Tensor device_x = bench.to_device(x);
    const Operand a = scaled(bench, 256, 1024, kRowTile128, kNumbers, kind);  // what x becomes, for its magnitudes
    const Operand b = scaled(bench, 384, 1024, kBlock128, 12, kind);
    const auto on = [&](bool device) {
      return [&, device](TensorView c, ConstTensorView bias, Stream& stream) {
        quantize_and_multiply(c, device ? device_x : x, b.view(device), kind, product.accumulate, bias, stream);
      };
    };
    const double worst = worst_of(bench, product, a, b, on(false), on(true));
    bench.verdict(name, worst <= 1, fmt::format("worst error {:.3f} of its bound", worst));
  });
}

}  // namespace

void check_products(Bench& bench) {
  for (const bool a_turned : {false, true}) {
    for (const bool b_turned : {false, true}) check_bf16(bench, a_turned, b_turned);
  }
  bench.part("gemm bf16 bias", [&] {
    check_product(bench, {.name = "bf16 bias", .output = DType::bf16, .bias = true},
                  plain(bench, DType::bf16, 64, 256, false, 3), plain(bench, DType::bf16, 128, 256, false, 4));
  });
  bench.part("gemm f32", [&] {
    check_product(bench, {.name = "f32"}, plain(bench, DType::f32, 200, 300, false, 5),
                  plain(bench, DType::f32, 100, 300, false, 6));
  });
  check_empty_sums(bench);
  check_bytes(bench, kRowTile128, kBlock128, "fp8 1x128 by 128x128");
  check_bytes(bench, kRowTile128, kRowTile128, "fp8 1x128 by 1x128");
  check_bytes(bench, kPerTensor, kPerTensor, "fp8 per tensor");
  for (const auto& [kind, title] :
       {std::pair{ScaleKind::f32, "any scales"}, {ScaleKind::power_of_two, "powers of two"}}) {
    const std::string name = title;
    check_quantized(bench, kind, {.name = name, .accumulator_error = kByteError});
    check_quantized(bench, kind, {.name = name + " accumulate", .accumulate = true, .accumulator_error = kByteError});
    check_quantized(
        bench, kind,
        {.name = name + " to bf16, bias", .output = DType::bf16, .bias = true, .accumulator_error = kByteError});
  }
  check_damage(bench);
}

}  // namespace shoestring::cuda_compare
