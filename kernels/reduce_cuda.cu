// Scaled adds on a CUDA device, with the reference's bits. Reductions have no row here: their result is a number of the
// host, which an op does not wait for.
#include <algorithm>

#include "kernels/base/launch.cuh"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/reduce.h"

namespace shoestring::reduce::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxBlocks = 1 << 20;  // then a thread takes several elements

struct Parameters {
  void* out;
  const void* x;
  const void* y;  ///< or nullptr
  float a, b;
  std::int64_t count;
  bool narrow_x, narrow_y;
};

__device__ float element(const void* data, bool narrow, std::int64_t i) {
  return narrow ? to_single(static_cast<const BFloat16*>(data)[i]) : static_cast<const float*>(data)[i];
}

template <class Out>
__global__ void __launch_bounds__(kThreads) axpby_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.count; i += stride) {
    const float x = element(p.x, p.narrow_x, i);
    static_cast<Out*>(p.out)[i] =
        Out(p.y == nullptr ? __fmul_rn(p.a, x) : fmaf(p.a, x, __fmul_rn(p.b, element(p.y, p.narrow_y, i))));
  }
}

}  // namespace

std::string refuses(const AxpbyArgs& args) { return needs_cuda(args.stream, {args.out, args.x, args.y}); }

void run(const AxpbyArgs& args) {
  const Parameters p{args.out.data,
                     args.x.data,
                     args.y.data,
                     static_cast<float>(args.a),
                     static_cast<float>(args.b),
                     args.out.elements(),
                     args.x.dtype == DType::bf16,
                     args.y.dtype == DType::bf16};
  const auto blocks = static_cast<unsigned>(std::min((p.count + kThreads - 1) / kThreads, kMaxBlocks));
  launch("axpby", args.out.dtype == DType::f32 ? axpby_kernel<float> : axpby_kernel<BFloat16>,
         {blocks, kThreads, cuda_stream(args.stream)}, p);
}

}  // namespace shoestring::reduce::cuda
