// Rotary positions on a CUDA device: a thread a pair, neighbours along a head.
#include "kernels/base/launch.cuh"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/rope.h"

namespace shoestring::rotary::cuda {
namespace {

constexpr int kThreads = 256;

struct Parameters {
  void* x;
  std::int64_t token_stride, head_stride;
  int heads, pairs;
  int step, partner;  ///< between pairs, and from a pair's first element to its second
  const std::int32_t* positions;
  std::int64_t max_positions;
  const float* cosines;
  const float* sines;
  bool inverse;
};

/// A block a token. A position outside the table, which a host could refuse, gives NaN: seen, and nobody's memory read.
template <class T>
__global__ void __launch_bounds__(kThreads) rotate_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t position = p.positions[blockIdx.x];
  const bool inside = position >= 0 && position < p.max_positions;
  T* const token = static_cast<T*>(p.x) + blockIdx.x * p.token_stride;
  for (int item = static_cast<int>(threadIdx.x); item < p.heads * p.pairs; item += kThreads) {
    const int i = item % p.pairs;
    T* const x = token + item / p.pairs * p.head_stride + i * p.step;
    const float cosine = inside ? p.cosines[position * p.pairs + i] : nanf("");
    const float table = inside ? p.sines[position * p.pairs + i] : nanf("");
    const float sine = p.inverse ? -table : table;
    const float a = to_single(x[0]);
    const float b = to_single(x[p.partner]);
    x[0] = T(fmaf(a, cosine, -__fmul_rn(b, sine)));
    x[p.partner] = T(fmaf(b, cosine, __fmul_rn(a, sine)));
  }
}

}  // namespace

std::string refuses(const RopeArgs& args) {
  return needs_cuda(args.stream, {args.x, args.positions, args.table.cosines, args.table.sines});
}

void rotate(const RopeArgs& args) {
  const int pairs = static_cast<int>(args.table.dim() / 2);
  const bool interleaved = args.table.style == RopeStyle::interleaved;
  const Parameters p{args.x.data,
                     args.x.strides[0],
                     args.x.strides[1],
                     static_cast<int>(args.x.shape[1]),
                     pairs,
                     interleaved ? 2 : 1,
                     interleaved ? 1 : pairs,
                     args.positions.as<std::int32_t>(),
                     args.table.max_positions(),
                     args.table.cosines.as<float>(),
                     args.table.sines.as<float>(),
                     args.inverse};
  launch("rope", args.x.dtype == DType::f32 ? rotate_kernel<float> : rotate_kernel<BFloat16>,
         {static_cast<unsigned>(args.x.shape[0]), kThreads, cuda_stream(args.stream)}, p);
}

}  // namespace shoestring::rotary::cuda
