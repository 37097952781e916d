// What the checks and timings of CUDA ops share: two streams, numbers to try, and how results are compared.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"
#include "tools/bench/cuda_check_bench.h"

namespace shoestring::cuda_compare {

/// Both sides of a comparison, and where its verdicts go.
struct Bench {
  Stream cpu;
  Stream cuda;
  CheckObserver observer{};  ///< told of each verdict as it falls; optional
  std::vector<CudaCheck> checks{};
  bool quick = false;  ///< leaves out shapes that run no other code: for the emulator
  /// Asked before each part that is in no other one whether it is to be run; empty: all are.
  std::function<bool(const std::string& part)> wanted{};
  int inside = 0;  ///< parts that have begun

  void verdict(std::string name, bool passed, std::string detail);
  /// Runs `body`; what it throws is a failed check of this name, not the end of the others. Parts may nest.
  void part(const std::string& name, const std::function<void()>& body);
  Tensor to_device(ConstTensorView view);
  Tensor to_host(ConstTensorView view);
  Device device() const { return cuda.device(); }
};

using Tensors = std::vector<Tensor>;
using Op = std::function<void(Tensors&, Stream&)>;

/// Copies of `tensors` where `stream` works, after `op` on them.
Tensors result_of(const Op& op, const Tensors& tensors, Stream& stream);

/// Runs `op` on both sides and compares all tensors afterwards, bit for bit.
void check_bits(Bench& bench, const std::string& name, const Tensors& tensors, const Op& op);

/// How far a result may be from the one in double: `sum` per unit of `magnitude` (see worst_error), and two roundings.
struct Close {
  std::size_t tensor;
  std::string what;
  double sum;
  std::vector<double> magnitude;
  /// At most |a - b| / |b| over all elements, for results so much smaller than their largest terms that the bound of an
  /// element says little; 0: not asked.
  double norm = 0;
};
/// Runs `op` on the device, and on the CPU in double on the same numbers; compares the tensors that `close` names, of
/// which `close` may look at those in double first.
void check_close(Bench& bench, const std::string& name, const Tensors& tensors, const Op& op,
                 const std::function<std::vector<Close>(const Tensors& expected)>& close);

/// f32 and bf16 tensors as f64, others as they are.
Tensors in_double(const Tensors& tensors);

/// i32 numbers below `modulus`.
Tensor integers(const Shape& shape, int modulus, int step);

/// Normal numbers times exp(1.5 normal). `hostile`: also zeros, values that underflow, NaN, infinities, and midpoints
/// between neighbouring codes.
Tensor numbers(DType dtype, const Shape& shape, std::uint32_t stream, bool hostile = false);

/// What an op overwrites: bytes of 0xFF, so NaN in each floating-point format and -1 in the signed ones. What it
/// forgets to write is seen also where 0 would be right.
Tensor poisoned(DType dtype, const Shape& shape);

double value(const Tensor& tensor, std::int64_t index);

/// Which bytes differ; empty when none does.
std::string difference(const Tensor& a, const Tensor& b);

/// Largest |a - b| over its bound: two roundings to the format of `a`, and `sum` times the magnitude of the terms
/// behind each element (one for all when `magnitude` has one element). Infinite when there is a NaN.
double worst_error(const Tensor& a, const Tensor& b, double sum, const std::vector<double>& magnitude);

/// |a - b| / |b|; infinite when there is a NaN.
double norm_error(const Tensor& a, const Tensor& b);

/// Probabilistic error between two sums of `length` singles, per unit of magnitude: 2 * 6 sqrt(length) 2^-24.
double sum_error(std::int64_t length);

/// The parts of check_cuda_ops.
void check_moves(Bench& bench);     ///< quantise, dequantise, RMSNorm
void check_ops(Bench& bench);       ///< what a model does beside products and attention
void check_elements(Bench& bench);  ///< ops whose results have the bits of the CPU's
void check_experts(Bench& bench);   ///< router, loads, plans
void check_blocks(Bench& bench);    ///< SwiGLU and cross-entropy
void check_fused(Bench& bench);     ///< ops that quantise what they make, against their halves
void check_groups(Bench& bench);    ///< FP8 products of experts
void check_attention(Bench& bench);
void check_products(Bench& bench);  ///< GEMM, and the one that quantises

}  // namespace shoestring::cuda_compare
