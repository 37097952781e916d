// Attention on a CUDA device without a library: FlashAttention-2 in tiles of 32 queries by 32 keys, in single precision
// on the ordinary cores. Eight threads share a row of a tile; operands pass through shared memory 32 dims at a time, so
// that any head up to 256 dims fits. No atomics: one kernel sums dq, another dk and dv.
//
// A block takes 32 tokens and splits them at documents; key tiles (query tiles for dk, dv) are laid from a document's
// first token, so that a token's result does not depend on its place in the batch. segment_start is trusted to be what
// the host checks of it on a CPU, but for what would leave the batch.
//
// Floors: FMAs over the rate of FP32 FMAs (67 TFLOP/s on an H100: 2 * pairs * (qk + v) forward, 5 products backward and
// 2 of them twice); and shared memory, one and a quarter loads for each FMA, four times slower than that. Tensor cores
// (cuDNN, or an own kernel of them) are twenty times faster: this row is for devices and head sizes without.
#include "kernels/attention_cuda.h"
#include "kernels/cuda_elements.cuh"
#include "kernels/cuda_refusals.h"

namespace shoestring::attention::cuda {
namespace {

constexpr int kTile = 32;
constexpr int kThreads = 256;
constexpr int kColumns = 4;  // of a tile's row, a thread's: every eighth from its own
constexpr int kMaxDim = 256;
constexpr int kMaxChunks = kMaxDim / kTile;

struct Heads {
  void* data;
  std::int64_t token_stride, head_stride;
};

struct Parameters {
  Heads q, k, v, o, d_o, dq, dk, dv;
  float* lse;
  float* delta;  ///< [heads, tokens]: the sum of d_o times o
  const std::int32_t* start;
  int tokens, heads, kv_heads, qk_dim, v_dim;
  float scale;
};

using Tile = float[kTile][kTile + 1];
struct Shared {
  Tile a, b;
  Tile weights, more_weights;
};

/// Rows [first, end) of one head, at most 32.
struct Rows {
  const Heads& of;
  int head, first, end;
};

__device__ int row_of() { return static_cast<int>(threadIdx.x) / 8; }
__device__ int column_of(int i) { return static_cast<int>(threadIdx.x) % 8 + 8 * i; }

template <class T>
__device__ void load_tile(const Rows& rows, int dim, int dims, Tile& tile) {
  const int column = static_cast<int>(threadIdx.x) % kTile;
  for (int r = static_cast<int>(threadIdx.x) / kTile; r < kTile; r += kThreads / kTile) {
    const bool inside = rows.first + r < rows.end && dim + column < dims;
    const T* from = static_cast<const T*>(rows.of.data) + (rows.first + r) * rows.of.token_stride +
                    rows.head * rows.of.head_stride + dim + column;
    tile[r][column] = inside ? to_single(*from) : 0.0f;
  }
}

/// dots[i] = row r of `a` times row column_of(i) of `b`.
template <class T>
__device__ void multiply(const Rows& a, const Rows& b, int dims, Shared& shared, float (&dots)[kColumns]) {
  for (float& dot : dots) dot = 0;
  for (int dim = 0; dim < dims; dim += kTile) {
    __syncthreads();  // whoever used the tiles before
    load_tile<T>(a, dim, dims, shared.a);
    load_tile<T>(b, dim, dims, shared.b);
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < kTile; ++c) {
      const float left = shared.a[row_of()][c];
      for (int i = 0; i < kColumns; ++i) dots[i] = fmaf(left, shared.b[column_of(i)][c], dots[i]);
    }
  }
}

using Sums = float[kMaxChunks][kColumns];  // of row r: columns 32 chunk + column_of(i)

/// sums += weights * b
template <class T>
__device__ void add_product(const Tile& weights, const Rows& b, int dims, Shared& shared, Sums& sums) {
#pragma unroll
  for (int chunk = 0; chunk < kMaxChunks; ++chunk) {
    if (chunk * kTile >= dims) continue;
    __syncthreads();  // whoever used the tile before; and the weights are written
    load_tile<T>(b, chunk * kTile, dims, shared.b);
    __syncthreads();
#pragma unroll 8
    for (int s = 0; s < kTile; ++s) {
      const float weight = weights[row_of()][s];
      for (int i = 0; i < kColumns; ++i) sums[chunk][i] = fmaf(weight, shared.b[s][column_of(i)], sums[chunk][i]);
    }
  }
}

/// Row r of `to`, times `factor`, if it is one.
template <class T>
__device__ void write_row(const Rows& to, int dims, const Sums& sums, float factor) {
  if (to.first + row_of() >= to.end) return;
  T* row = static_cast<T*>(to.of.data) + (to.first + row_of()) * to.of.token_stride + to.head * to.of.head_stride;
#pragma unroll
  for (int chunk = 0; chunk < kMaxChunks; ++chunk) {
    for (int i = 0; i < kColumns; ++i) {
      const int column = chunk * kTile + column_of(i);
      if (column < dims) row[column] = T(sums[chunk][i] * factor);
    }
  }
}

/// Tokens [first, end) of one document, which begins at `begin`.
struct Piece {
  int begin, first, end;
};
__device__ Piece piece_from(const Parameters& p, int first, int limit) {
  Piece piece{min(max(p.start[first], 0), first), first, first + 1};
  while (piece.end < limit && p.start[piece.end] == p.start[first]) ++piece.end;
  return piece;
}

/// Over the eight threads of a row.
template <class Combine>
__device__ float over_row(float value, Combine combine) {
  for (int step = 4; step > 0; step /= 2) value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, step));
  return value;
}

template <class T>
__device__ void forward_piece(const Parameters& p, const Piece& piece, int head, Shared& shared) {
  const int kv_head = head / (p.heads / p.kv_heads);
  const Rows queries{p.q, head, piece.first, piece.end};
  const int token = piece.first + row_of();
  Sums sums = {};
  float highest = -INFINITY;
  float total = 0;
  for (int key = piece.begin; key < piece.end; key += kTile) {
    const int key_end = min(key + kTile, piece.end);
    float dots[kColumns];
    multiply<T>(queries, {p.k, kv_head, key, key_end}, p.qk_dim, shared, dots);
    float most = highest;
    for (int i = 0; i < kColumns; ++i) {
      const bool seen = token < piece.end && key + column_of(i) <= token;
      dots[i] = seen ? p.scale * dots[i] : -INFINITY;
      most = fmaxf(most, dots[i]);
    }
    most = over_row(most, [](float a, float b) { return fmaxf(a, b); });
    const float shift = most == -INFINITY ? 0.0f : most;  // a row past the piece sees nothing
    float part = 0;
    for (int i = 0; i < kColumns; ++i) {
      const float weight = expf(dots[i] - shift);
      shared.weights[row_of()][column_of(i)] = weight;
      part += weight;
    }
    part = over_row(part, [](float a, float b) { return a + b; });
    const float correction = expf(highest - shift);
    total = total * correction + part;
    highest = most;
#pragma unroll
    for (int chunk = 0; chunk < kMaxChunks; ++chunk) {
      for (int i = 0; i < kColumns; ++i) sums[chunk][i] *= correction;
    }
    add_product<T>(shared.weights, {p.v, kv_head, key, key_end}, p.v_dim, shared, sums);
  }
  write_row<T>({p.o, head, piece.first, piece.end}, p.v_dim, sums, 1.0f / total);
  if (token < piece.end && threadIdx.x % 8 == 0) {
    p.lse[static_cast<std::int64_t>(head) * p.tokens + token] = highest + logf(total);
  }
}

/// A block 32 tokens of one head.
template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const __grid_constant__ Parameters p) {
  __shared__ Shared shared;
  const int head = static_cast<int>(blockIdx.x) % p.heads;
  const int first = static_cast<int>(blockIdx.x) / p.heads * kTile;
  const int limit = min(first + kTile, p.tokens);
  for (Piece piece{0, 0, first}; piece.end < limit;) {
    piece = piece_from(p, piece.end, limit);
    forward_piece<T>(p, piece, head, shared);
  }
}

// ---- backward

/// A warp a token and head.
template <class T>
__global__ void __launch_bounds__(kThreads) delta_kernel(const __grid_constant__ Parameters p) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (item >= static_cast<std::int64_t>(p.heads) * p.tokens) return;
  const std::int64_t head = item / p.tokens;
  const std::int64_t token = item % p.tokens;
  const auto row = [&](const Heads& of) {
    return static_cast<const T*>(of.data) + token * of.token_stride + head * of.head_stride;
  };
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < p.v_dim; i += 32) {
    sum = fmaf(to_single(row(p.d_o)[i]), to_single(row(p.o)[i]), sum);
  }
  sum = sum_warp(sum);
  if (threadIdx.x % 32 == 0) p.delta[item] = sum;
}

/// The probability and d score of a pair, from its two products.
struct PairGradient {
  float probability, score;
};
__device__ PairGradient pair_gradient(const Parameters& p, int head, int query, float qk, float dv) {
  const std::int64_t at = static_cast<std::int64_t>(head) * p.tokens + query;
  const float probability = expf(p.scale * qk - p.lse[at]);
  return {probability, p.scale * probability * (dv - p.delta[at])};
}

template <class T>
__device__ void query_gradient_piece(const Parameters& p, const Piece& piece, int head, Shared& shared) {
  const int kv_head = head / (p.heads / p.kv_heads);
  const int token = piece.first + row_of();
  Sums sums = {};
  for (int key = piece.begin; key < piece.end; key += kTile) {
    const int key_end = min(key + kTile, piece.end);
    const Rows keys{p.k, kv_head, key, key_end};
    float qk[kColumns];
    float dv[kColumns];
    multiply<T>({p.q, head, piece.first, piece.end}, keys, p.qk_dim, shared, qk);
    multiply<T>({p.d_o, head, piece.first, piece.end}, {p.v, kv_head, key, key_end}, p.v_dim, shared, dv);
    for (int i = 0; i < kColumns; ++i) {
      const bool seen = token < piece.end && key + column_of(i) <= token;
      shared.weights[row_of()][column_of(i)] = seen ? pair_gradient(p, head, token, qk[i], dv[i]).score : 0.0f;
    }
    add_product<T>(shared.weights, keys, p.qk_dim, shared, sums);
  }
  write_row<T>({p.dq, head, piece.first, piece.end}, p.qk_dim, sums, 1.0f);
}

template <class T>
__global__ void __launch_bounds__(kThreads) query_gradient_kernel(const __grid_constant__ Parameters p) {
  __shared__ Shared shared;
  const int head = static_cast<int>(blockIdx.x) % p.heads;
  const int first = static_cast<int>(blockIdx.x) / p.heads * kTile;
  const int limit = min(first + kTile, p.tokens);
  for (Piece piece{0, 0, first}; piece.end < limit;) {
    piece = piece_from(p, piece.end, limit);
    query_gradient_piece<T>(p, piece, head, shared);
  }
}

template <class T>
__device__ void key_gradient_piece(const Parameters& p, const Piece& piece, int kv_head, Shared& shared) {
  const int group = p.heads / p.kv_heads;
  const int key = piece.first + row_of();
  Sums dk = {};
  Sums dv = {};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int query = piece.first - (piece.first - piece.begin) % kTile; query < p.tokens; query += kTile) {
      const int mine = query + static_cast<int>(threadIdx.x);
      const int count = __syncthreads_count(threadIdx.x < kTile && mine < p.tokens &&
                                            min(max(p.start[mine], 0), mine) == piece.begin);
      if (count == 0) break;
      const Rows queries{p.q, head, query, query + count};
      const Rows outputs{p.d_o, head, query, query + count};
      float qk[kColumns];
      float products[kColumns];
      multiply<T>({p.k, kv_head, piece.first, piece.end}, queries, p.qk_dim, shared, qk);
      multiply<T>({p.v, kv_head, piece.first, piece.end}, outputs, p.v_dim, shared, products);
      for (int i = 0; i < kColumns; ++i) {
        const int q = query + column_of(i);
        const bool seen = key < piece.end && q < query + count && key <= q;
        const PairGradient pair = seen ? pair_gradient(p, head, q, qk[i], products[i]) : PairGradient{0, 0};
        shared.weights[row_of()][column_of(i)] = pair.probability;
        shared.more_weights[row_of()][column_of(i)] = pair.score;
      }
      add_product<T>(shared.weights, outputs, p.v_dim, shared, dv);
      add_product<T>(shared.more_weights, queries, p.qk_dim, shared, dk);
    }
  }
  write_row<T>({p.dk, kv_head, piece.first, piece.end}, p.qk_dim, dk, 1.0f);
  write_row<T>({p.dv, kv_head, piece.first, piece.end}, p.v_dim, dv, 1.0f);
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) key_gradient_kernel(const __grid_constant__ Parameters p) {
  __shared__ Shared shared;
  const int kv_head = static_cast<int>(blockIdx.x) % p.kv_heads;
  const int first = static_cast<int>(blockIdx.x) / p.kv_heads * kTile;
  const int limit = min(first + kTile, p.tokens);
  for (Piece piece{0, 0, first}; piece.end < limit;) {
    piece = piece_from(p, piece.end, limit);
    key_gradient_piece<T>(p, piece, kv_head, shared);
  }
}

// ---- the host's side

Heads heads_of(ConstTensorView view) { return {const_cast<void*>(view.data), view.strides[0], view.strides[1]}; }

template <class Args>
Parameters inputs_of(const Args& args) {
  Parameters p{};
  p.q = heads_of(args.q);
  p.k = heads_of(args.k);
  p.v = heads_of(args.v);
  p.o = heads_of(args.o);
  p.lse = const_cast<float*>(ConstTensorView(args.lse).template as<float>());
  p.start = args.segment_start.template as<std::int32_t>();
  p.tokens = static_cast<int>(args.q.shape[0]);
  p.heads = static_cast<int>(args.q.shape[1]);
  p.kv_heads = static_cast<int>(args.k.shape[1]);
  p.qk_dim = static_cast<int>(args.q.shape[2]);
  p.v_dim = static_cast<int>(args.v.shape[2]);
  p.scale = static_cast<float>(args.scale);
  return p;
}

Launch by_tile(int tokens, int heads, const Stream& stream) {
  return {static_cast<unsigned>((tokens + kTile - 1) / kTile * heads), kThreads, cuda_stream(stream)};
}

std::string refuses_extents(std::string reason, ConstTensorView q, ConstTensorView v) {
  if (!reason.empty()) return reason;
  if (q.shape[2] > kMaxDim || v.shape[2] > kMaxDim) return "heads of more than 256 dims";
  if (q.shape[0] * q.shape[1] > INT32_MAX) return "more than 2^31 - 1 heads of tokens";
  return {};
}

}  // namespace

std::string refuses(const AttentionArgs& args) {
  return refuses_extents(needs_cuda(args.stream, {args.q, args.k, args.v, args.o, args.lse, args.segment_start}),
                         args.q, args.v);
}
std::string refuses(const AttentionBackwardArgs& args) {
  return refuses_extents(needs_cuda(args.stream, {args.q, args.k, args.v, args.o, args.d_o, args.dq, args.dk, args.dv,
                                                  args.lse, args.segment_start}),
                         args.q, args.v);
}

void forward(const AttentionArgs& args) {
  const Parameters p = inputs_of(args);
  launch("attention_forward", args.q.dtype == DType::f32 ? forward_kernel<float> : forward_kernel<BFloat16>,
         by_tile(p.tokens, p.heads, args.stream), p);
}

void backward(const AttentionBackwardArgs& args) {
  const Arena::Scope scope(args.scratch);
  Parameters p = inputs_of(args);
  p.d_o = heads_of(args.d_o);
  p.dq = heads_of(args.dq);
  p.dk = heads_of(args.dk);
  p.dv = heads_of(args.dv);
  p.delta = args.scratch.take(DType::f32, args.lse.shape).as<float>();
  const bool single = args.q.dtype == DType::f32;
  const auto warps = static_cast<unsigned>((args.lse.elements() + kThreads / 32 - 1) / (kThreads / 32));
  launch("attention_backward: delta", single ? delta_kernel<float> : delta_kernel<BFloat16>,
         {warps, kThreads, cuda_stream(args.stream)}, p);
  launch("attention_backward: dq", single ? query_gradient_kernel<float> : query_gradient_kernel<BFloat16>,
         by_tile(p.tokens, p.heads, args.stream), p);
  launch("attention_backward: dk, dv", single ? key_gradient_kernel<float> : key_gradient_kernel<BFloat16>,
         by_tile(p.tokens, p.kv_heads, args.stream), p);
}

}  // namespace shoestring::attention::cuda
