// Matrix products as the bench times them: operands made at random, weights packed ahead of the timing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/base/device.h"
#include "kernels/base/memory.h"
#include "kernels/base/tensor.h"
#include "kernels/base/workers.h"
#include "kernels/gemm.h"
#include "kernels/quantize.h"
#include "tools/bench/onednn_rival.h"

namespace shoestring {

struct ProductSize {
  std::int64_t m, n, k;
  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
  std::string text() const;
};

/// Numbers between -1/2 and 1/2, in f32 or bf16.
Tensor random_matrix(DType dtype, const Shape& shape);

/// A quantised matrix with its memory.
struct QuantisedMatrix {
  Tensor values;
  Tensor scales;
  Granularity granularity;
  ScaleKind kind;

  QuantisedMatrix(const Shape& shape, Granularity tiles, ScaleKind scale_kind);
  void from(ConstTensorView x, Stream& stream);
  ConstScaledView view() const { return {values.view(), scales.view(), granularity}; }
};

/// One product with its operands: `run` is what is timed.
class TimedProduct {
 public:
  TimedProduct(ProductSize size, DType c, Workers& workers);
  virtual ~TimedProduct() = default;
  virtual void run() = 0;

 protected:
  Stream stream_;
  Tensor c_;
  Arena scratch_;
};

/// In f32 or bf16 throughout.
class PlainProduct : public TimedProduct {
 public:
  PlainProduct(ProductSize size, DType dtype, Workers& workers);
  void run() override;
  std::unique_ptr<OnednnMatmul> rival(bool packed);

 private:
  Tensor a_;
  Tensor b_;
  PackedMatrix packed_;
};

/// Activations from bf16 to FP8 and the product with packed weights.
class Fp8Product : public TimedProduct {
 public:
  Fp8Product(ProductSize size, ScaleKind kind, Workers& workers);
  void run() override;

 private:
  ScaleKind kind_;
  Tensor x_;
  QuantisedMatrix b_;
  PackedMatrix packed_;
};

}  // namespace shoestring
