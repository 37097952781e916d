// SwiGLU on a CUDA device: forward a thread four columns; the gradient a block a row, for the sum of the row's weight.
//
// Floors: bytes over the memory's speed (forward 3 activations an element, gradient 5 or 6); and one exp each, two in
// the gradient, at a quarter of the rate of an FMA, which stays below the bytes on every GPU since sm_80.
#include "kernels/cuda_refusals.h"
#include "kernels/swiglu_device.cuh"

namespace shoestring::swiglu::cuda {
namespace {

constexpr int kRowThreads = 128;

struct ForwardParameters {
  GateUp in;
  void* y;
  std::int64_t y_stride;
  std::int64_t rows;
  unsigned quads;  ///< of a row
  bool aligned;
};

template <class Act, class In>
__global__ void __launch_bounds__(kElementThreads) forward_kernel(const __grid_constant__ ForwardParameters p) {
  const std::int64_t count = p.rows * p.quads;
  for (std::int64_t item = first_element(); item < count; item += element_step()) {
    const auto row = static_cast<std::uint32_t>(item) / p.quads;  // `refuses` keeps items below 2^32
    const std::int64_t j = static_cast<std::int64_t>(static_cast<std::uint32_t>(item) % p.quads) * 4;
    float y[4];
    activate4<In>(p.in, row, j, weight_of(p.in, row), y);
    store_up_to4(static_cast<Act*>(p.y) + row * p.y_stride + j, p.in.f - j, p.aligned, y);
  }
}

struct GradientParameters {
  GateUp in;
  void* dgate_up;
  std::int64_t dgate_up_stride;
  float* drow_weight;  ///< or nullptr
  std::int64_t drow_weight_stride;
  void* y;  ///< or nullptr
  std::int64_t y_stride;
  const void* dy;
  std::int64_t dy_stride;
  bool aligned;  ///< dgate_up, y and dy
};

/// A thread reads its columns before it writes them, so that dgate_up may be gate_up and y may be dy.
template <class Act, class In>
__global__ void __launch_bounds__(kRowThreads) gradient_kernel(const __grid_constant__ GradientParameters p) {
  __shared__ float shared[kRowThreads / 32];
  const std::int64_t row = blockIdx.x;
  const std::int64_t f = p.in.f;
  const float weight = weight_of(p.in, row);
  Act* dgate = static_cast<Act*>(p.dgate_up) + row * p.dgate_up_stride;
  float dweight = 0;
  for (std::int64_t j = threadIdx.x * 4; j < f; j += kRowThreads * 4) {
    const Four four = load_pairs<In>(p.in, row, j);
    float dy[4], dg[4], du[4], y[4];
    load_up_to4(static_cast<const Act*>(p.dy) + row * p.dy_stride + j, f - j, p.aligned, dy);
    for (int i = 0; i < 4; ++i) {
      const Clamped c = clamped(p.in, four.gate[i], four.up[i]);
      const float s = 1.0f / (1.0f + expf(-c.g));
      const float a = c.g * s;
      if (j + i < f) dweight = fmaf(dy[i], a * c.u, dweight);
      const float slope = s * (1.0f + c.g / (1.0f + expf(c.g)));
      dg[i] = c.gate_passes ? weight * dy[i] * c.u * slope : 0.0f;
      du[i] = c.up_passes ? weight * dy[i] * a : 0.0f;
      y[i] = weight * a * c.u;
    }
    store_up_to4(dgate + j, f - j, p.aligned, dg);
    store_up_to4(dgate + f + j, f - j, p.aligned, du);
    if (p.y != nullptr) store_up_to4(static_cast<Act*>(p.y) + row * p.y_stride + j, f - j, p.aligned, y);
  }
  if (p.drow_weight == nullptr) return;
  dweight = sum_block<kRowThreads>(dweight, shared);
  if (threadIdx.x == 0) p.drow_weight[row * p.drow_weight_stride] = dweight;
}

std::string refuses_rows(std::string reason, std::int64_t rows, std::int64_t f) {
  if (reason.empty() && rows * ((f + 3) / 4) >= std::int64_t{1} << 32) return "2^34 elements or more";
  if (reason.empty() && rows > INT32_MAX) return "more than 2^31 - 1 rows";
  return reason;
}

}  // namespace

std::string refuses(const SwigluArgs& args) {
  return refuses_rows(needs_cuda(args.stream, {args.y, args.gate_up.values, args.gate_up.scales, args.row_weight}),
                      args.y.shape[0], args.y.shape[1]);
}
std::string refuses(const SwigluGradientArgs& args) {
  return refuses_rows(needs_cuda(args.stream, {args.dy, args.dgate_up, args.drow_weight, args.y, args.gate_up.values,
                                               args.gate_up.scales, args.row_weight}),
                      args.dy.shape[0], args.dy.shape[1]);
}

void forward(const SwigluArgs& args) {
  const std::int64_t rows = args.y.shape[0];
  const std::int64_t quads = (args.y.shape[1] + 3) / 4;
  const ForwardParameters p{gate_up_of(args.gate_up, args.row_weight, args.clamp),
                            args.y.data,
                            args.y.strides[0],
                            rows,
                            static_cast<unsigned>(quads),
                            rows_of_four(args.y.data, args.y.strides[0], size_bytes(args.y.dtype))};
  const bool codes = args.gate_up.scaled();
  const auto kernel = args.y.dtype == DType::f32
                          ? (codes ? forward_kernel<float, E4M3> : forward_kernel<float, float>)
                          : (codes ? forward_kernel<BFloat16, E4M3> : forward_kernel<BFloat16, BFloat16>);
  launch("swiglu forward", kernel, over_elements(rows * quads, args.stream), p);
}

void gradient(const SwigluGradientArgs& args) {
  const auto fours = [&](ConstTensorView view) {
    return view.empty() || rows_of_four(view.data, view.strides[0], size_bytes(view.dtype));
  };
  GradientParameters p{};
  p.in = gate_up_of(args.gate_up, args.row_weight, args.clamp);
  p.dgate_up = args.dgate_up.data;
  p.dgate_up_stride = args.dgate_up.strides[0];
  p.drow_weight = args.drow_weight.as<float>();
  p.drow_weight_stride = args.drow_weight.empty() ? 0 : args.drow_weight.strides[0];
  p.y = args.y.data;
  p.y_stride = args.y.empty() ? 0 : args.y.strides[0];
  p.dy = args.dy.data;
  p.dy_stride = args.dy.strides[0];
  p.aligned = p.in.f % 4 == 0 && fours(args.dgate_up) && fours(args.y) && fours(args.dy);
  const bool codes = args.gate_up.scaled();
  const auto kernel = args.dy.dtype == DType::f32
                          ? (codes ? gradient_kernel<float, E4M3> : gradient_kernel<float, float>)
                          : (codes ? gradient_kernel<BFloat16, E4M3> : gradient_kernel<BFloat16, BFloat16>);
  launch("swiglu gradient", kernel, {static_cast<unsigned>(args.dy.shape[0]), kRowThreads, cuda_stream(args.stream)},
         p);
}

}  // namespace shoestring::swiglu::cuda
