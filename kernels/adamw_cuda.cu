// AdamW on a CUDA device: a thread an element, operation by operation as the reference, with its bits.
#include <algorithm>

#include "kernels/adamw.h"
#include "kernels/base/launch.cuh"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"

namespace shoestring::adamw::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 20;  // then a thread takes several elements

struct Parameters {
  float* parameter;
  void* first;
  void* second;
  BFloat16* copy;  ///< or nullptr
  const float* gradient;
  std::int64_t count;
  Coefficients<float> c;
};

template <class Moment>
__global__ void __launch_bounds__(kThreads) step_kernel(const __grid_constant__ Parameters p) {
  const Coefficients<float>& c = p.c;
  auto* first = static_cast<Moment*>(p.first);
  auto* second = static_cast<Moment*>(p.second);
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.count; i += stride) {
    const float g = __fmul_rn(c.gradient_scale, p.gradient[i]);
    const float m = fmaf(c.beta1, to_single(first[i]), __fmul_rn(c.one_minus_beta1, g));
    const float v = fmaf(c.beta2, to_single(second[i]), __fmul_rn(__fmul_rn(c.one_minus_beta2, g), g));
    const float update = __fdiv_rn(m, fmaf(__fsqrt_rn(v), c.inverse_root_correction, c.eps));
    const float parameter = fmaf(-c.step_size, update, __fmul_rn(c.decay, p.parameter[i]));
    first[i] = Moment(m);
    second[i] = Moment(v);
    p.parameter[i] = parameter;
    if (p.copy != nullptr) p.copy[i] = BFloat16(parameter);
  }
}

}  // namespace

std::string refuses(const AdamwArgs& args) {
  return needs_cuda(args.stream, {args.parameter, args.first_moment, args.second_moment, args.copy, args.gradient});
}

void step(const AdamwArgs& args) {
  const Parameters p{args.parameter.as<float>(), args.first_moment.data,    args.second_moment.data,
                     args.copy.as<BFloat16>(),   args.gradient.as<float>(), args.parameter.elements(),
                     coefficients<float>(args)};
  const auto blocks = static_cast<unsigned>(std::min((p.count + kThreads - 1) / kThreads, kMaxBlocks));
  launch("adamw", args.first_moment.dtype == DType::f32 ? step_kernel<float> : step_kernel<BFloat16>,
         {blocks, kThreads, cuda_stream(args.stream)}, p);
}

}  // namespace shoestring::adamw::cuda
