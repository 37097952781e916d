// Sums, maxima and scaled adds on a CUDA device, with the reference's bits: a warp holds the 32 running sums of one
// block of the span, a lane each; a second launch adds the blocks.
//
// Floors: bytes over the memory's speed; and for a sum the longest chain, 2^-15 of the span's elements one after the
// other in a lane (sixteen loads in flight), which a span of 2^30 meets at a quarter of the memory's speed.
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/reduce.h"

namespace shoestring::reduce::cuda {
namespace {

struct Parameters {
  void* out;
  const void* x;
  const void* y;  ///< or nullptr
  float a, b;
  std::int64_t count;
  bool narrow_x, narrow_y;
  const double* squares;  ///< or nullptr
  double eps;
};

__device__ float element(const void* data, bool narrow, std::int64_t i) {
  return narrow ? to_single(static_cast<const BFloat16*>(data)[i]) : static_cast<const float*>(data)[i];
}

template <class Out>
__global__ void __launch_bounds__(kElementThreads) axpby_kernel(const __grid_constant__ Parameters p) {
  const float a = p.squares == nullptr ? p.a : static_cast<float>(1.0 / (sqrt(*p.squares) + p.eps));
  for (std::int64_t i = first_element(); i < p.count; i += element_step()) {
    const float x = element(p.x, p.narrow_x, i);
    static_cast<Out*>(p.out)[i] =
        Out(p.y == nullptr ? __fmul_rn(a, x) : fmaf(a, x, __fmul_rn(p.b, element(p.y, p.narrow_y, i))));
  }
}

// ---- sums

constexpr int kCombineThreads = 512;

struct SumParameters {
  double* result;
  double* partials;
  const void* x;
  std::int64_t count, block;  ///< elements, and of them in a block
  int blocks;
  ReduceKind kind;
};

/// max |x|, or NaN: as magnitudes in bits, of which those of NaN are the largest.
__device__ double warp_max(unsigned bits) { return __uint_as_float(__reduce_max_sync(0xFFFFFFFFu, bits)); }

/// A block of one warp a block of the span.
template <class T>
__global__ void __launch_bounds__(32) sum_blocks_kernel(const __grid_constant__ SumParameters p) {
  const T* x = static_cast<const T*>(p.x) + blockIdx.x * p.block;
  const std::int64_t count = min(p.block, p.count - blockIdx.x * p.block);
  double sum = 0;
  unsigned most = 0;
#pragma unroll 16
  for (std::int64_t i = threadIdx.x; i < count; i += kSums) {
    const float value = to_single(x[i]);
    if (p.kind == ReduceKind::max_abs) {
      most = max(most, __float_as_uint(value) & 0x7FFFFFFFu);
    } else {
      sum = p.kind == ReduceKind::sum ? sum + value : fma(static_cast<double>(value), static_cast<double>(value), sum);
    }
  }
  if (p.kind == ReduceKind::max_abs) {
    sum = warp_max(most);
  } else {
    for (int step = 1; step < kSums; step *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);  // pairwise
  }
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

/// One block of threads: adds 2i and 2i + 1 until one is left.
__global__ void __launch_bounds__(kCombineThreads) combine_kernel(const __grid_constant__ SumParameters p) {
  __shared__ double terms[kMaxBlocks];
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < p.blocks; i += kCombineThreads) terms[i] = p.partials[i];
  __syncthreads();
  for (int count = p.blocks; count > 1; count = (count + 1) / 2) {
    const int pairs = count / 2;
    const double left = thread < pairs ? terms[2 * thread] : 0;
    const double right = thread < pairs ? terms[2 * thread + 1] : 0;
    const double last = terms[count - 1];
    __syncthreads();
    const bool nan = left != left || right != right;
    if (thread < pairs) {
      terms[thread] = p.kind != ReduceKind::max_abs ? left + right : nan ? left + right : fmax(left, right);
    }
    if (thread == 0 && count % 2 == 1) terms[pairs] = last;
    __syncthreads();
  }
  if (thread == 0) *p.result = terms[0];
}

}  // namespace

std::string refuses(const AxpbyArgs& args) { return needs_cuda(args.stream, {args.out, args.x, args.y, args.squares}); }

void run(const AxpbyArgs& args) {
  const Parameters p{args.out.data,
                     args.x.data,
                     args.y.data,
                     static_cast<float>(args.a),
                     static_cast<float>(args.b),
                     args.out.elements(),
                     args.x.dtype == DType::bf16,
                     args.y.dtype == DType::bf16,
                     args.squares.as<double>(),
                     args.eps};
  launch("axpby", args.out.dtype == DType::f32 ? axpby_kernel<float> : axpby_kernel<BFloat16>,
         over_elements(p.count, args.stream), p);
}

std::string refuses(const ReduceArgs& args) {
  const std::string reason = needs_cuda(args.stream, {args.x, args.result, args.partials});
  if (!reason.empty()) return reason;
  if (args.partials.dtype != DType::f64 || args.partials.elements() < kMaxBlocks) return "no room for partial sums";
  return {};
}

void run(const ReduceArgs& args) {
  SumParameters p{
      args.result.as<double>(), args.partials.as<double>(), args.x.data, args.x.elements(), 0, 0, args.kind};
  p.block = block_elements(p.count);
  p.blocks = static_cast<int>((p.count + p.block - 1) / p.block);
  const cudaStream_t stream = cuda_stream(args.stream);
  launch("reduce: blocks", args.x.dtype == DType::f32 ? sum_blocks_kernel<float> : sum_blocks_kernel<BFloat16>,
         {static_cast<unsigned>(p.blocks), 32, stream}, p);
  launch("reduce", combine_kernel, {1, kCombineThreads, stream}, p);
}

}  // namespace shoestring::reduce::cuda
