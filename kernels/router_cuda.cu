// The router on a CUDA device: a warp a token, a lane every 32nd expert. Selection runs on integers in the order of the
// biased scores, so that ties and NaN rank as on a CPU; indices and weights have the bits that a CPU makes of the same
// scores. Scores and gradients are single precision; the k numbers of a token's weights are double, as on a CPU.
//
// Floors: bytes over the memory's speed, three numbers an expert forward, two and a half backward; and k + groups
// searches of experts / 32 keys in a row for a token, some 20 ns each, of which an SM has 48 in flight.
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"
#include "kernels/router.h"

namespace shoestring::router::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr unsigned kAll = 0xFFFFFFFFu;

__device__ int lane_of() { return static_cast<int>(threadIdx.x) % 32; }

// ---- ranks: larger keys rank before smaller ones; 0 takes no part

constexpr unsigned kNanKey = 1;

__device__ unsigned key_of(float x) {
  if (x != x) return kNanKey;
  const unsigned bits = __float_as_uint(x + 0.0f);  // one zero
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float value_of(unsigned key) {
  if (key == kNanKey) return nanf("");
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

/// The best of keys [0, count), the first among equals, which then takes no part. The same in every lane; a key is only
/// read and written by the lane whose turn it is.
__device__ int take_best(unsigned* keys, int count) {
  unsigned best = 0;
  unsigned at = kAll;
  for (int i = lane_of(); i < count; i += 32) {
    if (keys[i] > best) {
      best = keys[i];
      at = static_cast<unsigned>(i);
    }
  }
  const unsigned most = __reduce_max_sync(kAll, best);
  const unsigned first = __reduce_min_sync(kAll, best == most ? at : kAll);
  if (first % 32 == static_cast<unsigned>(lane_of())) keys[first] = 0;
  return static_cast<int>(first);
}

struct ForwardParameters {
  std::int32_t* indices;
  float* weights;
  float* scores;
  const float* logits;
  std::int64_t logits_stride;
  const void* bias;  ///< f32 or f64 [experts], or nullptr
  bool wide_bias;
  std::int64_t tokens;
  int experts, k, groups, topk_groups;
  RouterKind kind;
  bool group_by_best, normalize;
  float scale;
};

__device__ void score(const ForwardParameters& p, const float* logits, float* scores) {
  float most = -INFINITY;
  float sum = 0;
  if (p.kind == RouterKind::softmax) {
    for (int e = lane_of(); e < p.experts; e += 32) most = fmaxf(most, logits[e]);
    for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(kAll, most, step));
    for (int e = lane_of(); e < p.experts; e += 32) sum += expf(logits[e] - most);
    sum = sum_warp(sum);
  }
  for (int e = lane_of(); e < p.experts; e += 32) {
    const float x = logits[e];
    switch (p.kind) {
      case RouterKind::softmax: scores[e] = expf(x - most) / sum; break;
      case RouterKind::sigmoid: scores[e] = 1.0f / (1.0f + expf(-x)); break;
      case RouterKind::sqrt_softplus: scores[e] = sqrtf((x > 0 || x != x ? x : 0.0f) + log1pf(expf(-fabsf(x)))); break;
    }
  }
}

/// Experts of all but the best groups take no part any more.
__device__ void choose_groups(const ForwardParameters& p, unsigned* keys, unsigned* group_keys) {
  const int size = p.experts / p.groups;
  __syncwarp();  // every lane has made its keys
  for (int group = lane_of(); group < p.groups; group += 32) {
    unsigned first = 0;
    unsigned second = 0;
    for (int e = group * size; e < (group + 1) * size; ++e) {
      const unsigned key = keys[e];
      second = max(second, min(first, key));
      first = max(first, key);
    }
    group_keys[group] = key_of(p.group_by_best || size == 1 ? value_of(first) : value_of(first) + value_of(second));
  }
  for (int i = 0; i < p.topk_groups; ++i) take_best(group_keys, p.groups);
  __syncwarp();  // every lane knows which were taken
  for (int e = lane_of(); e < p.experts; e += 32) {
    if (group_keys[e / size] != 0) keys[e] = 0;
  }
}

__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ ForwardParameters p) {
  __shared__ unsigned expert_keys[kWarps][kRouterMaxExperts];
  __shared__ unsigned group_keys[kWarps][kRouterMaxExperts];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (token >= p.tokens) return;
  float* scores = p.scores + token * p.experts;
  std::int32_t* indices = p.indices + token * p.k;
  score(p, p.logits + token * p.logits_stride, scores);
  unsigned* keys = expert_keys[warp];
  for (int e = lane_of(); e < p.experts; e += 32) {
    const float bias = p.bias == nullptr ? 0.0f
                       : p.wide_bias     ? static_cast<float>(static_cast<const double*>(p.bias)[e])
                                         : static_cast<const float*>(p.bias)[e];
    keys[e] = key_of(p.bias == nullptr ? scores[e] : scores[e] + bias);
  }
  if (p.groups > 1 && p.topk_groups < p.groups) choose_groups(p, keys, group_keys[warp]);
  for (int c = 0; c < p.k; ++c) {
    const int expert = take_best(keys, p.experts);
    if (lane_of() == 0) indices[c] = expert;
  }
  __syncwarp();  // scores of the other lanes
  if (lane_of() != 0) return;
  float sum = 0;
  for (int c = 0; c < p.k; ++c) sum += scores[indices[c]];
  for (int c = 0; c < p.k; ++c) {
    const float s = scores[indices[c]];
    p.weights[token * p.k + c] = p.normalize ? p.scale * (s / (sum + 1e-20f)) : p.scale * s;
  }
}

// ---- gradient

struct GradientParameters {
  float* dlogits;
  std::int64_t dlogits_stride;
  const float* dweights;
  const std::int32_t* indices;
  const float* scores;
  std::int64_t tokens;
  int experts, k;
  RouterKind kind;
  bool normalize;
  float scale, alpha;
  const float* load;  ///< or nullptr
  const std::int32_t* starts;
  int sequences;
};

/// What d score of one expert is made of, for all experts of a token.
struct ScoreGradient {
  const float* dweights;
  const std::int32_t* indices;
  double factor, mean;  ///< of the weights
  const float* load;    ///< of the token's sequence, or nullptr
  float balance_factor, balance_mean;
  __device__ float at(const GradientParameters& p, int e) const {
    float d = 0;
    for (int c = 0; c < p.k; ++c) {
      if (indices[c] == e) d += static_cast<float>(factor * (static_cast<double>(dweights[c]) - mean));
    }
    return load == nullptr ? d : d + balance_factor * (load[e] - balance_mean);
  }
};

__device__ ScoreGradient score_gradient(const GradientParameters& p, std::int64_t token, const float* scores) {
  ScoreGradient d{p.dweights + token * p.k, p.indices + token * p.k, p.scale, 0, nullptr, 0, 0};
  if (p.normalize) {
    double sum = 1e-20;
    for (int c = 0; c < p.k; ++c) sum += static_cast<double>(scores[d.indices[c]]);
    for (int c = 0; c < p.k; ++c) {
      d.mean += static_cast<double>(d.dweights[c]) * (static_cast<double>(scores[d.indices[c]]) / sum);
    }
    d.factor /= sum;
  }
  if (p.load == nullptr) return d;
  int sequence = 0;  // the last that begins at or before the token
  for (int step = 1 << 30; step > 0; step /= 2) {
    if (sequence + step < p.sequences && p.starts[sequence + step] <= token) sequence += step;
  }
  const float* load = p.load + static_cast<std::int64_t>(sequence) * p.experts;
  float total = 0;
  float weighted = 0;
  for (int e = lane_of(); e < p.experts; e += 32) {
    total += scores[e];
    weighted = fmaf(load[e], scores[e], weighted);
  }
  total = sum_warp(total);
  weighted = sum_warp(weighted);
  if (!(total > 0)) return d;
  d.load = load;
  d.balance_factor = p.alpha / total;
  d.balance_mean = weighted / total;
  return d;
}

__global__ void __launch_bounds__(kThreads) gradient_kernel(const __grid_constant__ GradientParameters p) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= p.tokens) return;
  const float* scores = p.scores + token * p.experts;
  const ScoreGradient d = score_gradient(p, token, scores);
  float mean = 0;
  if (p.kind == RouterKind::softmax) {
    for (int e = lane_of(); e < p.experts; e += 32) mean = fmaf(d.at(p, e), scores[e], mean);
    mean = sum_warp(mean);
  }
  for (int e = lane_of(); e < p.experts; e += 32) {
    const float s = scores[e];
    float slope = s;
    if (p.kind == RouterKind::sigmoid) slope = s * (1.0f - s);
    if (p.kind == RouterKind::sqrt_softplus) slope = s > 0 ? -expm1f(-s * s) / (2.0f * s) : 0.0f;
    p.dlogits[token * p.dlogits_stride + e] = (d.at(p, e) - mean) * slope;
  }
}

Launch by_token(std::int64_t tokens, const Stream& stream) {
  return {static_cast<unsigned>((tokens + kWarps - 1) / kWarps), kThreads, cuda_stream(stream)};
}

}  // namespace

std::string refuses(const RouterArgs& args) {
  return needs_cuda(args.stream, {args.scores, args.indices, args.weights, args.logits, args.bias});
}
std::string refuses(const RouterGradientArgs& args) {
  return needs_cuda(args.stream,
                    {args.scores, args.dlogits, args.dweights, args.indices, args.load, args.sequence_starts});
}

void forward(const RouterArgs& args) {
  const ForwardParameters p{args.indices.as<std::int32_t>(),
                            args.weights.as<float>(),
                            args.scores.as<float>(),
                            args.logits.as<float>(),
                            args.logits.strides[0],
                            args.bias.data,
                            args.bias.dtype == DType::f64,
                            args.scores.shape[0],
                            static_cast<int>(args.scores.shape[1]),
                            static_cast<int>(args.indices.shape[1]),
                            static_cast<int>(args.groups),
                            static_cast<int>(args.topk_groups),
                            args.kind,
                            args.group_by_best,
                            args.normalize,
                            args.scale};
  launch("router_forward", forward_kernel, by_token(p.tokens, args.stream), p);
}

void gradient(const RouterGradientArgs& args) {
  const GradientParameters p{args.dlogits.as<float>(),
                             args.dlogits.strides[0],
                             args.dweights.as<float>(),
                             args.indices.as<std::int32_t>(),
                             args.scores.as<float>(),
                             args.scores.shape[0],
                             static_cast<int>(args.scores.shape[1]),
                             static_cast<int>(args.indices.shape[1]),
                             args.kind,
                             args.normalize,
                             args.scale,
                             args.alpha,
                             args.load.as<float>(),
                             args.sequence_starts.as<std::int32_t>(),
                             args.load.empty() ? 0 : static_cast<int>(args.load.shape[0])};
  launch("router_gradient", gradient_kernel, by_token(p.tokens, args.stream), p);
}

}  // namespace shoestring::router::cuda
