// Loads of a mixture's experts on a CUDA device: counted in integers, so that no order matters; the balance loss, a
// block a sequence, in double; and the step of the selection bias.
//
// Floors: bytes over the memory's speed, the scores once; and one atomic in shared memory for each slot.
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/router.h"
#include "kernels/router_load.h"

namespace shoestring::router::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ void count_slots(const std::int32_t* indices, std::int64_t begin, std::int64_t step, std::int64_t end,
                            int experts, int* counts) {
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  for (std::int64_t slot = begin + threadIdx.x; slot < end; slot += step) {
    const int expert = indices[slot];
    if (expert >= 0 && expert < experts) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads)
    count_kernel(std::int64_t* counts, const std::int32_t* indices, std::int64_t slots, int experts) {
  __shared__ int own[kRouterMaxExperts];
  count_slots(indices, static_cast<std::int64_t>(blockIdx.x) * kThreads,
              static_cast<std::int64_t>(gridDim.x) * kThreads, slots, experts, own);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    if (own[e] != 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(counts + e), static_cast<unsigned long long>(own[e]));
  }
}

struct BalanceParameters {
  double* loss;    ///< [1], added to
  double* losses;  ///< [sequences]
  float* load;
  const std::int32_t* indices;
  const float* scores;
  const std::int32_t* starts;
  int sequences, experts, k;
  double alpha;
};

__global__ void __launch_bounds__(kThreads) balance_kernel(const __grid_constant__ BalanceParameters p) {
  __shared__ int counts[kRouterMaxExperts];
  __shared__ double parts[kWarps];
  const std::int64_t begin = p.starts[blockIdx.x];
  const std::int64_t end = p.starts[blockIdx.x + 1];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* load = p.load + static_cast<std::int64_t>(blockIdx.x) * p.experts;
  count_slots(p.indices, begin * p.k, kThreads, end * p.k, p.experts, counts);
  const double unit = begin == end ? 0.0 : static_cast<double>(p.experts) / static_cast<double>(p.k * (end - begin));
  const auto load_of = [&](int e) { return static_cast<float>(unit * static_cast<double>(counts[e])); };
  for (int e = static_cast<int>(threadIdx.x); e < p.experts; e += kThreads) load[e] = load_of(e);
  double total = 0;
  for (std::int64_t token = begin + warp; token < end; token += kWarps) {
    double sum = 0;
    double weighted = 0;
    for (int e = lane; e < p.experts; e += 32) {
      const double s = p.scores[token * p.experts + e];
      sum += s;
      weighted += static_cast<double>(load_of(e)) * s;
    }
    for (int step = 16; step > 0; step /= 2) {
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
      weighted += __shfl_xor_sync(0xFFFFFFFFu, weighted, step);
    }
    if (sum > 0) total += weighted / sum;
  }
  if (lane == 0) parts[warp] = total;
  __syncthreads();
  if (threadIdx.x != 0) return;
  total = 0;
  for (int w = 0; w < kWarps; ++w) total += parts[w];
  p.losses[blockIdx.x] = p.alpha * total;
}

/// One thread: in the order of the sequences.
__global__ void add_losses_kernel(const __grid_constant__ BalanceParameters p) {
  double total = 0;
  for (int s = 0; s < p.sequences; ++s) total += p.losses[s];
  *p.loss += total;
}

/// One block.
template <class Bias>
__global__ void __launch_bounds__(kThreads)
    bias_kernel(Bias* bias, const std::int64_t* counts, int experts, float speed) {
  std::int64_t total = 0;
  for (int e = 0; e < experts; ++e) total += counts[e];
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    const std::int64_t error = total - counts[e] * experts;
    bias[e] += static_cast<Bias>(error > 0 ? speed : error < 0 ? -speed : 0.0f);
  }
}

}  // namespace

std::string refuses(const RouterCountArgs& args) {
  const std::string reason = needs_cuda(args.stream, {args.counts, args.indices}, false);
  return reason.empty() && args.counts.elements() > kRouterMaxExperts ? "too many experts" : reason;
}
std::string refuses(const RouterBalanceArgs& args) {
  const std::string reason =
      needs_cuda(args.stream, {args.scores, args.loss, args.losses, args.load, args.indices, args.sequence_starts});
  return reason.empty() && args.losses.empty() ? "no room for each sequence's loss" : reason;
}
std::string refuses(const RouterBiasArgs& args) { return needs_cuda(args.stream, {args.bias, args.counts}, false); }

void count(const RouterCountArgs& args) {
  const std::int64_t slots = args.indices.elements();
  const auto blocks = static_cast<unsigned>(std::min<std::int64_t>((slots + 4 * kThreads - 1) / (4 * kThreads), 256));
  launch("router_count_load", count_kernel, {blocks, kThreads, cuda_stream(args.stream)},
         args.counts.as<std::int64_t>(), args.indices.as<std::int32_t>(), slots,
         static_cast<int>(args.counts.elements()));
}

void balance(const RouterBalanceArgs& args) {
  const BalanceParameters p{args.loss.as<double>(),
                            args.losses.as<double>(),
                            args.load.as<float>(),
                            args.indices.as<std::int32_t>(),
                            args.scores.as<float>(),
                            args.sequence_starts.as<std::int32_t>(),
                            static_cast<int>(args.load.shape[0]),
                            static_cast<int>(args.scores.shape[1]),
                            static_cast<int>(args.indices.shape[1]),
                            static_cast<double>(args.alpha)};
  const cudaStream_t stream = cuda_stream(args.stream);
  launch("router_balance_loss", balance_kernel, {static_cast<unsigned>(p.sequences), kThreads, stream}, p);
  launch("router_balance_loss: sum", add_losses_kernel, {1, 1, stream}, p);
}

void update_bias(const RouterBiasArgs& args) {
  const auto* counts = args.counts.as<std::int64_t>();
  const int experts = static_cast<int>(args.counts.elements());
  const Launch at{1, kThreads, cuda_stream(args.stream)};
  if (args.bias.dtype == DType::f64) {
    launch("router_update_bias", bias_kernel<double>, at, args.bias.as<double>(), counts, experts, args.speed);
  } else {
    launch("router_update_bias", bias_kernel<float>, at, args.bias.as<float>(), counts, experts, args.speed);
  }
}

}  // namespace shoestring::router::cuda
