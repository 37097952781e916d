// What a Linear takes: the sizes that linear.cpp asks its arenas for, before it asks.
#include <algorithm>

#include "core/model/adapter.h"
#include "core/model/linear.h"
#include "kernels/grouped_gemm.h"

namespace shoestring {
namespace {

bool tall(Granularity granularity) { return granularity.rows > 1; }

}  // namespace

std::int64_t Linear::copy_bytes(std::int64_t rows, std::int64_t columns, Granularity granularity) const {
  const DType scale = options_.precision.scale_dtype();
  Shape scales = scales_shape(rows, columns, granularity);
  if (tall(granularity)) scales[0] += groups();  // each may end a tile early
  return arena_bytes(DType::e4m3, rows * columns) + arena_bytes(scale, scales.elements());
}

std::int64_t Linear::operand_bytes(std::int64_t rows, std::int64_t columns, ProductFormat format) const {
  if (format == ProductFormat::fp8) return copy_bytes(rows, columns, options_.precision.row_tile);
  const DType dtype = dtype_of(format);
  return dtype == options_.precision.activation ? 0 : arena_bytes(dtype, rows * columns);
}

std::int64_t Linear::saved_bytes(std::int64_t rows) const {
  std::int64_t bytes = bias.rows > 0 && !bias.frozen ? arena_bytes(options_.precision.master, options_.out) : 0;
  if (quantises_input()) bytes += copy_bytes(rows, options_.in, options_.precision.column_tile);
  if (quantises_gradient()) bytes += copy_bytes(rows, options_.out, options_.precision.column_tile);
  return bytes + (adapter_ ? adapter_->saved_bytes(rows) : 0);
}

std::int64_t Linear::product_scratch(std::int64_t rows, int workers) const {
  const std::int64_t in = options_.in;
  const std::int64_t out = options_.out;
  if (options_.experts > 0) {
    return std::max({grouped_gemm_scratch_bytes(rows, out, in, groups(), workers, true),
                     grouped_gemm_scratch_bytes(rows, in, out, groups(), workers, true),
                     grouped_weight_gemm_scratch_bytes(rows, out, in, groups(), workers)});
  }
  return std::max({gemm_scratch_bytes(rows, out, in, workers, true), gemm_scratch_bytes(rows, in, out, workers, true),
                   gemm_scratch_bytes(out, in, rows, workers, false)});
}

std::int64_t Linear::scratch_bytes(std::int64_t rows, int workers) const {
  const LinearPrecision& p = options_.precision;
  const std::int64_t in = options_.in;
  const std::int64_t out = options_.out;
  std::int64_t late = 0;  // operands of the weight gradient that are made when it runs
  if (p.weight_gradient == ProductFormat::fp8) {
    if (!p.cache_fp8) late = copy_bytes(rows, in, p.column_tile);
  } else {
    late = operand_bytes(rows, in, p.weight_gradient) + operand_bytes(rows, out, p.weight_gradient);
  }
  std::int64_t ones = bias.rows > 0 ? arena_bytes(p.activation, out) + arena_bytes(p.master, rows) : 0;
  const std::int64_t products =
      std::max({operand_bytes(rows, in, p.forward), operand_bytes(rows, out, p.input_gradient) + ones, late}) +
      product_scratch(rows, workers);
  const std::int64_t casts = uses(ProductFormat::bf16) ? arena_bytes(DType::bf16, weight.elements()) : 0;
  const std::int64_t most = std::max(products, casts);
  return adapter_ ? std::max(most, adapter_->scratch_bytes(rows, workers)) : most;
}

std::int64_t Linear::prepared_bytes() const {
  const LinearPrecision& p = options_.precision;
  std::int64_t bytes = adapter_ ? adapter_->prepared_bytes() : 0;
  if (uses(ProductFormat::fp8)) {
    Shape scales = scales_shape(weight.rows, weight.columns, p.weight_tile);
    if (options_.experts > 0 && tall(p.weight_tile)) {
      scales[0] = options_.experts * scales_shape(options_.out, weight.columns, p.weight_tile)[0];
    }
    const std::int64_t copies = p.weight_tile == kRowTile32 ? 2 : 1;
    bytes += copies * (weight.elements() + scales.elements() * size_bytes(p.scale_dtype()));
  }
  const auto packed = [&](ProductFormat format, std::int64_t n, std::int64_t k) -> std::int64_t {
    if (format == ProductFormat::f64) return 0;
    const Granularity granularity = format == ProductFormat::fp8 ? p.weight_tile : Granularity{};
    return PackedMatrix::packed_bytes(n, k, dtype_of(format), granularity, stack());
  };
  return bytes + packed(p.forward, options_.out, options_.in) + packed(p.input_gradient, options_.in, options_.out);
}

}  // namespace shoestring
