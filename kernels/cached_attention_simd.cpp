// Attention over kept keys in FP32 in vectors; bf16 is widened as it is read. Compiled once for each instruction set.
//
// A unit of work is one key head of up to eight rows of one slot. Six queries go together: sixteen keys in the lanes
// for scores, sixteen dims for sums of values. Each score, maximum, sum and mean is the chain that attention_simd.cpp
// has for the same token, corrected after the same 128 keys; there sixteen queries stand in the lanes instead.
#include <algorithm>
#include <limits>

#include "kernels/attention_squares.h"
#include "kernels/base/workers.h"
#include "kernels/cached_attention_variants.h"
#include "kernels/cpu_refusals.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cached_attention_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/exp_simd.h"
#include "kernels/lanes_simd.h"

#ifndef SHOESTRING_KERNELS_CACHED_ATTENTION_TILE_
#define SHOESTRING_KERNELS_CACHED_ATTENTION_TILE_
namespace shoestring::attention::simd {

inline constexpr int kTile = 6;  ///< queries that go together: twelve sums fill the registers of AVX2

/// A worker's own memory.
struct CachedScratch {
  float* q;       // [6][qk_dim], widened
  float* scores;  // [6][128]
  float* sums;    // [6][v_dim rounded up to sixteen]
  std::int64_t v_stride;
  std::int64_t floats;

  CachedScratch(float* at, std::int64_t qk_dim, std::int64_t v_dim) : v_stride(round_up(v_dim, kSquare)) {
    SquaresTaker taker(at);
    q = taker.take(kTile * round_up(qk_dim, kSquare));
    scores = taker.take(kTile * kForwardKeys);
    sums = taker.take(kTile * v_stride);
    floats = taker.floats();
  }
};

}  // namespace shoestring::attention::simd
#endif

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace {

using namespace simd;
using namespace shoestring::HWY_NAMESPACE::lanes;

constexpr double kLog2E = 1.4426950408889634;

/// One query of a tile. Maximum and sum in powers of two, as in attention_simd.cpp.
struct Query {
  std::int64_t row;
  std::int64_t head;
  std::int64_t seen;  ///< keys it looks at
  float max;
  float sum;
  float correction;  ///< of what was summed before the present keys
};

/// scores[query][key] of `keys` keys, a multiple of sixteen; `stride` is from one sixteen to the next.
template <class T, int count>
void score(const T* kept, std::int64_t stride, std::int64_t keys, std::int64_t qk_dim, const CachedScratch& s) {
  for (std::int64_t key = 0; key < keys; key += kCachedKeys, kept += stride) {
    Floats sums[count];
    for (int i = 0; i < count; ++i) sums[i] = zeros();
    for (std::int64_t d = 0; d < qk_dim; ++d) {
      const Floats value = load(kept + d * kCachedKeys);
      for (int i = 0; i < count; ++i) sums[i] = fma(value, broadcast(s.q[i * qk_dim + d]), sums[i]);
    }
    for (int i = 0; i < count; ++i) store(s.scores + i * kForwardKeys + key, sums[i]);
  }
}

/// Probabilities, not yet divided by their sum, in place of the scores of keys [begin, begin + keys), 0 past what the
/// query sees; running maximum and sum go on.
void weigh(float* scores, std::int64_t begin, std::int64_t keys, float factor, Query& query) {
  const std::int64_t seen = std::clamp<std::int64_t>(query.seen - begin, 0, keys);
  query.correction = 1.0f;
  if (seen > 0) {
    Floats highest = broadcast(-std::numeric_limits<float>::infinity());
    for (std::int64_t key = 0; key < seen; key += kCachedKeys) {
      highest = greater(highest, select(mask_of(first(seen - key)), load(scores + key), highest));
    }
    const float raised = std::max(query.max, largest(highest) * factor);
    alignas(64) float corrections[kSquare];
    store(corrections, exp2(broadcast(query.max) - broadcast(raised)));
    query.correction = corrections[0];
    query.max = raised;
    query.sum *= query.correction;
  }
  const Floats scale = broadcast(factor), max = broadcast(query.max);
  for (std::int64_t key = 0; key < keys; key += kCachedKeys) {
    const Floats p = exp2(fms(load(scores + key), scale, max));
    store(scores + key, keep(mask_of(first(seen - key)), p));
  }
  for (std::int64_t key = 0; key < seen; ++key) query.sum += scores[key];
}

/// sums[query][dim] = correction * sums + probabilities times values.
template <class T, int count>
void gather(const T* values, std::int64_t stride, std::int64_t keys, std::int64_t v_dim, bool fresh,
            const Query* queries, const CachedScratch& s) {
  for (std::int64_t d = 0; d < v_dim; d += kSquare) {
    const First inside = first(v_dim - d);
    Floats sums[count];
    for (int i = 0; i < count; ++i) {
      sums[i] = fresh ? zeros() : load(s.sums + i * s.v_stride + d) * broadcast(queries[i].correction);
    }
    for (std::int64_t key = 0; key < keys; ++key) {
      const Floats value = load(values + key * stride + d, inside);
      for (int i = 0; i < count; ++i) sums[i] = fma(value, broadcast(s.scores[i * kForwardKeys + key]), sums[i]);
    }
    for (int i = 0; i < count; ++i) store(s.sums + i * s.v_stride + d, sums[i]);
  }
}

template <class T, int count>
void tile(const CachedAttentionArgs& args, const T* kept, const T* values, Query* queries, const CachedScratch& s) {
  const std::int64_t qk_dim = args.q.shape[2], v_dim = args.v.shape[2];
  const auto factor = static_cast<float>(args.scale * kLog2E);
  std::int64_t seen = 0;
  for (int i = 0; i < count; ++i) {
    const T* q = args.q.as<T>() + queries[i].row * args.q.strides[0] + queries[i].head * args.q.strides[1];
    for (std::int64_t d = 0; d < qk_dim; ++d) s.q[i * qk_dim + d] = static_cast<float>(q[d]);
    seen = std::max(seen, queries[i].seen);
  }
  for (std::int64_t begin = 0; begin < seen; begin += kForwardKeys) {
    const std::int64_t keys = std::min(kForwardKeys, round_up(seen - begin, kCachedKeys));
    score<T, count>(kept + begin / kCachedKeys * args.keys.strides[2], args.keys.strides[2], keys, qk_dim, s);
    for (int i = 0; i < count; ++i) weigh(s.scores + i * kForwardKeys, begin, keys, factor, queries[i]);
    gather<T, count>(values + begin * args.values.strides[2], args.values.strides[2], std::min(keys, seen - begin),
                     v_dim, begin == 0, queries, s);
  }
  for (int i = 0; i < count; ++i) {
    T* o = args.o.as<T>() + queries[i].row * args.o.strides[0] + queries[i].head * args.o.strides[1];
    const Floats inverse = broadcast(1.0f / queries[i].sum);
    for (std::int64_t d = 0; d < v_dim; d += kSquare) {
      store(o + d, load(s.sums + i * s.v_stride + d) * inverse, first(v_dim - d));
    }
  }
}

template <class T, int count = kTile>
void tile_of(std::int64_t wanted, const CachedAttentionArgs& args, const T* kept, const T* values, Query* queries,
             const CachedScratch& s) {
  if constexpr (count > 1) {
    if (wanted < count) return tile_of<T, count - 1>(wanted, args, kept, values, queries, s);
  }
  tile<T, count>(args, kept, values, queries, s);
}

template <class T>
void unit(const CachedAttentionArgs& args, const CachedRun& run, std::int64_t kv_head, float* scratch) {
  const CachedScratch s(scratch, args.q.shape[2], args.v.shape[2]);
  const std::int64_t group = args.q.shape[1] / args.k.shape[1];
  const std::int64_t slot = args.slots.as<std::int32_t>()[run.begin];
  const T* kept = args.keys.as<T>() + slot * args.keys.strides[0] + kv_head * args.keys.strides[1];
  const T* values = args.values.as<T>() + slot * args.values.strides[0] + kv_head * args.values.strides[1];
  const std::int64_t queries = (run.end - run.begin) * group;
  for (std::int64_t at = 0; at < queries; at += kTile) {
    Query some[kTile];
    const std::int64_t count = std::min<std::int64_t>(kTile, queries - at);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = run.begin + (at + i) / group;
      some[i] = {row,
                 kv_head * group + (at + i) % group,
                 args.positions.as<std::int32_t>()[row] + 1,
                 -std::numeric_limits<float>::infinity(),
                 0.0f,
                 1.0f};
    }
    tile_of<T>(count, args, kept, values, some, s);
  }
}

}  // namespace

void cached_unit(const CachedAttentionArgs& args, const CachedRun& run, std::int64_t kv_head, float* scratch) {
  args.q.dtype == DType::f32 ? unit<float>(args, run, kv_head, scratch) : unit<BFloat16>(args, run, kv_head, scratch);
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention::simd {

std::string refuses(const CachedAttentionArgs& args) { return needs_simd(args, args.q.dtype); }

std::int64_t cached_worker_bytes(std::int64_t qk_dim, std::int64_t v_dim) {
  return CachedScratch(nullptr, qk_dim, v_dim).floats * size_bytes(DType::f32);
}

void cached(const CachedAttentionArgs& args) {
  keep_rows(args);
  const Arena::Scope scope(args.scratch);
  const CachedRuns runs(args.slots, args.scratch);
  Workers& workers = args.stream.workers();
  const std::int64_t each = CachedScratch(nullptr, args.q.shape[2], args.v.shape[2]).floats;
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  const std::int64_t kv_heads = args.k.shape[1];
  const auto unit = SHOESTRING_SIMD(cached_unit);
  each_with_worker(workers, kv_heads * runs.count(), [&](int worker, std::int64_t item) {
    unit(args, runs[item / kv_heads], item % kv_heads, scratch + worker * each);
  });
}

}  // namespace shoestring::attention::simd
#endif
