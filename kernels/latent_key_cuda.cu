// Keys of multi-head latent attention on a CUDA device: a block a token; sums over heads in the reference's order, with
// its bits.
//
// Floors: bytes over the memory's speed, each element read and written once; a block's launch, 2 us for some thousand.
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/latent_key.h"

namespace shoestring::latent_key_op::cuda {
namespace {

constexpr int kThreads = 256;

struct Parameters {
  void* k;  ///< [tokens, heads, own + shared], or its gradient
  std::int64_t k_token, k_head;
  void* own;  ///< [tokens, heads, own]
  std::int64_t own_token, own_head;
  void* shared;  ///< [tokens, shared]
  std::int64_t shared_token;
  int heads, own_dim, shared_dim;
};

template <class Word>
__global__ void __launch_bounds__(kThreads) join_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t token = blockIdx.x;
  const int dim = p.own_dim + p.shared_dim;
  const Word* tail = static_cast<const Word*>(p.shared) + token * p.shared_token;
  for (int item = static_cast<int>(threadIdx.x); item < p.heads * dim; item += kThreads) {
    const int head = item / dim;
    const int j = item % dim;
    const Word* own = static_cast<const Word*>(p.own) + token * p.own_token + head * p.own_head;
    static_cast<Word*>(p.k)[token * p.k_token + head * p.k_head + j] = j < p.own_dim ? own[j] : tail[j - p.own_dim];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) split_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t token = blockIdx.x;
  const T* dk = static_cast<const T*>(p.k) + token * p.k_token;
  for (int item = static_cast<int>(threadIdx.x); item < p.heads * p.own_dim; item += kThreads) {
    const int head = item / p.own_dim;
    const int j = item % p.own_dim;
    static_cast<T*>(p.own)[token * p.own_token + head * p.own_head + j] = dk[head * p.k_head + j];
  }
  for (int j = static_cast<int>(threadIdx.x); j < p.shared_dim; j += kThreads) {
    float sum = 0;
    for (int head = 0; head < p.heads; ++head) sum += to_single(dk[head * p.k_head + p.own_dim + j]);
    static_cast<T*>(p.shared)[token * p.shared_token + j] = T(sum);
  }
}

Parameters parameters_of(ConstTensorView k, ConstTensorView own, ConstTensorView shared) {
  return {const_cast<void*>(k.data),
          k.strides[0],
          k.strides[1],
          const_cast<void*>(own.data),
          own.strides[0],
          own.strides[1],
          const_cast<void*>(shared.data),
          shared.strides[0],
          static_cast<int>(k.shape[1]),
          static_cast<int>(own.shape[2]),
          static_cast<int>(shared.shape[1])};
}

Launch by_token(ConstTensorView k, const Stream& stream) {
  return {static_cast<unsigned>(k.shape[0]), kThreads, cuda_stream(stream)};
}

}  // namespace

std::string refuses(const LatentKeyArgs& args) { return needs_cuda(args.stream, {args.k, args.own, args.shared}); }
std::string refuses(const LatentKeyGradientArgs& args) {
  return needs_cuda(args.stream, {args.dk, args.down, args.dshared});
}

void join(const LatentKeyArgs& args) {
  launch("latent_key", args.k.dtype == DType::f32 ? join_kernel<std::uint32_t> : join_kernel<std::uint16_t>,
         by_token(args.k, args.stream), parameters_of(args.k, args.own, args.shared));
}

void split(const LatentKeyGradientArgs& args) {
  launch("latent_key_gradient", args.dk.dtype == DType::f32 ? split_kernel<float> : split_kernel<BFloat16>,
         by_token(args.dk, args.stream), parameters_of(args.dk, args.down, args.dshared));
}

}  // namespace shoestring::latent_key_op::cuda
