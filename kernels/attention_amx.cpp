// The forward pass on AMX, and what both passes refuse.
//
// A unit of work is one key head of one document, up to 1,024 queries of it. For 32 queries and 128 keys:
//   scores [keys][32] = K Q^T    probabilities -> bf16 tiles    o [v_dim][32] += V^T P^T
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/attention_blocks_amx.h"
#include "kernels/attention_tiles_amx.h"
#include "kernels/attention_variants.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-bf16")

namespace shoestring::attention::amx {
namespace {

using namespace blocks;
using namespace tiles;

struct ForwardScratch {
  float* o;       // [v][32]
  float* scores;  // [keys][32]
  BFloat16* p;    // [keys / 32][2][tile]
  BFloat16* q;    // [2][qk / 32][tile], columns
  BFloat16* k;    // [longest][qk], rows
  BFloat16* v;    // [v / 16][longest / 32][tile], turned

  ForwardScratch(float* at, const Extents& e)
      : o(at),
        scores(o + e.v_dim * kQueries),
        p(reinterpret_cast<BFloat16*>(scores + kForwardKeys * kQueries)),
        q(p + kForwardKeys * kQueries),
        k(q + kQueries * e.qk_dim),
        v(k + e.longest * e.qk_dim) {}
  static std::int64_t bytes(const Extents& e) {
    return (e.v_dim + kForwardKeys) * kQueries * 4 +
           (kForwardKeys * kQueries + kQueries * e.qk_dim + e.longest * (e.qk_dim + e.v_dim)) * 2;
  }
};

/// Probabilities of 32 keys from their scores, as a pair of tiles whose k pairs are keys (2r, 2r + 1).
template <bool on_diagonal>
void exponentiate(const float* scores, BFloat16* p, float factor, Running& running) {
  const __m512 scale = _mm512_set1_ps(factor);
  for (int r = 0; r < 16; ++r) {
    for (int half = 0; half < 2; ++half) {
      const float* at = scores + 2 * r * kQueries + 16 * half;
      __m512 first = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(at), scale, running.max[half]));
      __m512 second = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(at + kQueries), scale, running.max[half]));
      if constexpr (on_diagonal) {
        first = _mm512_maskz_mov_ps(seeing(2 * r, half), first);
        second = _mm512_maskz_mov_ps(seeing(2 * r + 1, half), second);
      }
      running.sum[half] = _mm512_add_ps(running.sum[half], _mm512_add_ps(first, second));
      _mm512_storeu_si512(p + half * kTile + 32 * r, pair(half_up(first), half_up(second)));
    }
  }
}

void forward_queries(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t head,
                     std::int64_t first, std::int64_t padded, const ForwardScratch& s) {
  const std::int64_t queries = std::min(kQueries, document.tokens() - first);
  pack_columns(s.q, rows_of(args.q, document, head), first, kQueries, e.qk_dim);
  std::memset(s.o, 0, static_cast<std::size_t>(e.v_dim * kQueries) * sizeof(float));
  const auto factor = static_cast<float>(args.scale * kLog2E);
  Running running = start();
  const std::int64_t visible = first + kQueries;
  for (std::int64_t begin = 0; begin < visible; begin += kForwardKeys) {
    const std::int64_t keys = std::min(kForwardKeys, visible - begin);
    for (std::int64_t key = 0; key < keys; key += 32) {
      const Left k{s.k + (begin + key) * e.qk_dim, e.qk_dim * 2, 16 * e.qk_dim, 32};
      product<false>(s.scores + key * kQueries, kQueries, k, {s.q, e.qk_dim / 32 * kTile, kTile}, e.qk_dim / 32);
    }
    __m512 correction[2];
    raise_maximum(s.scores, keys, first - begin, factor, running, correction);
    correct(s.o, e.v_dim, correction);
    for (std::int64_t key = 0; key < keys; key += 32) {
      const auto run = begin + key == first ? exponentiate<true> : exponentiate<false>;
      run(s.scores + key * kQueries, s.p + key / 32 * 2 * kTile, factor, running);
    }
    for (std::int64_t j = 0; j < e.v_dim; j += 32) {
      const std::int64_t row = padded / 32 * kTile;  // one group of 16 dims, all keys
      const Left v{s.v + j / 16 * row + begin / 32 * kTile, 64, row, kTile};
      product<true>(s.o + j * kQueries, kQueries, v, {s.p, kTile, 2 * kTile}, keys / 32);
    }
  }
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 inverse[2] = {_mm512_div_ps(one, running.sum[0]), _mm512_div_ps(one, running.sum[1])};
  const std::int64_t token = document.begin + first;
  write_transposed(args.o.as<BFloat16>() + token * args.o.strides[0] + head * args.o.strides[1], args.o.strides[0], s.o,
                   queries, args.v.shape[2], inverse);
  write_lse(args.lse.as<float>() + head * args.q.shape[0] + token, running, queries);
}

void forward_unit(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                  std::int64_t first, std::int64_t last, float* scratch) {
  const Session session;
  const ForwardScratch s(scratch, e);
  const std::int64_t keys = std::min(last, document.tokens());
  const std::int64_t padded = round_up(keys, 32);
  pack_rows(s.k, rows_of(args.k, document, kv_head), padded, e.qk_dim);
  pack_turned(s.v, rows_of(args.v, document, kv_head), padded, e.v_dim);
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    for (std::int64_t query = first; query < keys; query += kQueries) {
      forward_queries(args, e, document, head, query, padded, s);
    }
  }
}

}  // namespace
}  // namespace shoestring::attention::amx
#pragma GCC pop_options

namespace shoestring::attention::amx {
namespace {

std::string refuses_tensors(const ConstTensorView& q) {
  if (q.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  if (!cpu_features().amx_bf16) return "the processor lacks AMX for bf16";
  if (q.dtype != DType::bf16) return "AMX multiplies bf16 only";
  return {};
}

}  // namespace

std::string refuses(const AttentionArgs& args) { return refuses_tensors(args.q); }
std::string refuses(const AttentionBackwardArgs& args) { return refuses_tensors(args.q); }

std::int64_t worker_bytes(const Extents& extents) {
  return Arena::footprint(std::max(ForwardScratch::bytes(extents), backward_bytes(extents)));
}

void forward(const AttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = round_up(ForwardScratch::bytes(extents), 64) / 4;
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  const std::int64_t parts = (documents.longest() + kForwardRows - 1) / kForwardRows;
  each_with_worker(workers, extents.kv_heads * documents.count() * parts, [&](int worker, std::int64_t item) {
    const std::int64_t kv_head = item % extents.kv_heads;  // neighbouring heads share pages and prefetches
    const std::int64_t part = item / extents.kv_heads;
    const Document document = documents[part / parts];
    const std::int64_t first = (parts - 1 - part % parts) * kForwardRows;  // long units first
    if (first >= document.tokens()) return;
    forward_unit(args, extents, document, kv_head, first, first + kForwardRows, scratch + worker * each);
  });
}

}  // namespace shoestring::attention::amx
