#include "tools/bench/timed_products.h"

#include <fmt/core.h>

#include "kernels/base/random.h"
#include "kernels/quantized_gemm.h"

namespace shoestring {

std::string ProductSize::text() const { return fmt::format("{}x{}x{}", m, n, k); }

Tensor random_matrix(DType dtype, const Shape& shape) {
  Tensor tensor(dtype, shape);
  const Random numbers(1, Purpose::test);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const auto value = static_cast<float>(numbers.uniform(static_cast<std::uint64_t>(i)) - 0.5);
    if (dtype == DType::f32) {
      tensor.as<float>()[i] = value;
    } else {
      tensor.as<BFloat16>()[i] = BFloat16(value);
    }
  }
  return tensor;
}

QuantisedMatrix::QuantisedMatrix(const Shape& shape, Granularity tiles, ScaleKind scale_kind)
    : values(DType::e4m3, shape),
      scales(DType::f32, scales_shape(shape[0], shape[1], tiles)),
      granularity(tiles),
      kind(scale_kind) {}

void QuantisedMatrix::from(ConstTensorView x, Stream& stream) {
  const ScaledView to{values, scales, granularity};
  QuantizeArgs args{.x = x, .scale_kind = kind, .stream = stream};
  (granularity == kColumnTile128 ? args.column_tiles : args.row_tiles) = to;
  quantize(args);
}

TimedProduct::TimedProduct(ProductSize size, DType c, Workers& workers)
    : stream_(workers),
      c_(c, {size.m, size.n}),
      scratch_(quantized_gemm_scratch_bytes(size.m, size.n, size.k, 0, workers.count(), false), Device{}) {}

PlainProduct::PlainProduct(ProductSize size, DType dtype, Workers& workers)
    : TimedProduct(size, dtype, workers),
      a_(random_matrix(dtype, {size.m, size.k})),
      b_(random_matrix(dtype, {size.n, size.k})) {
  pack(unscaled(b_), false, packed_, stream_);
}

void PlainProduct::run() {
  gemm({.c = c_, .a = unscaled(a_), .b = unscaled(b_), .packed_b = &packed_, .scratch = scratch_, .stream = stream_});
}

std::unique_ptr<OnednnMatmul> PlainProduct::rival(bool packed) {
  return OnednnMatmul::make(a_, b_, c_, packed, stream_.workers().count());
}

Fp8Product::Fp8Product(ProductSize size, ScaleKind kind, Workers& workers)
    : TimedProduct(size, DType::bf16, workers),
      kind_(kind),
      x_(random_matrix(DType::bf16, {size.m, size.k})),
      b_({size.n, size.k}, kBlock128, kind) {
  b_.from(random_matrix(DType::bf16, {size.n, size.k}), stream_);
  pack(b_.view(), kind != ScaleKind::f32, packed_, stream_);
}

void Fp8Product::run() {
  quantized_gemm({.c = c_,
                  .x = x_,
                  .scale_kind = kind_,
                  .b = b_.view(),
                  .packed_b = &packed_,
                  .scratch = scratch_,
                  .stream = stream_});
}

}  // namespace shoestring
