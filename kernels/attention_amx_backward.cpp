// The backward pass on AMX.
//
// A unit of work is one key head of one document. For 64 keys and 64 queries, in squares of 32 by 32:
//   scores = K Q^T, dP = V dO^T     [keys][queries], from rows and `columns` tiles
//   P, dS -> bf16                   as A tiles (k = queries) and dS also as B tiles (k = keys)
//   dV += P dO, dK += dS Q          `pairs` tiles of dO and Q
//   dQ^T += K^T dS                  `turned` tiles of K
// The sums stay in FP32 in scratch; their order is: query heads, then queries (dK, dV) or keys (dQ).
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/attention_blocks_amx.h"
#include "kernels/attention_tiles_amx.h"
#include "kernels/attention_variants.h"
#include "kernels/base/workers.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,amx-tile,amx-bf16")

namespace shoestring::attention::amx {
namespace {

using namespace blocks;
using namespace tiles;

constexpr std::int64_t kSquares = 2;  // squares of 32 per block, in keys and in queries

struct BackwardScratch {
  float* dq;           // [longest / 32][qk][32]
  float* dk;           // [longest][qk]
  float* dv;           // [longest][v]
  float* lse;          // [longest]
  float* delta;        // [longest]
  float* scores;       // [2][32][32]
  float* slopes;       // [2][32][32]
  BFloat16* p;         // [key square][2][query square][tile]
  BFloat16* ds;        // the same
  BFloat16* ds_right;  // [query square][2][key square][tile]
  BFloat16* k;         // [longest][qk], rows
  BFloat16* k_turned;  // [qk / 16][longest / 32][tile]
  BFloat16* v;         // [longest][v], rows
  BFloat16* q;         // [longest / 16][qk / 32][tile], columns
  BFloat16* q_pairs;   // [longest / 32][qk / 16][tile]
  BFloat16* d_o;       // [longest / 16][v / 32][tile], columns
  BFloat16* do_pairs;  // [longest / 32][v / 16][tile]

  static constexpr std::int64_t kBlock = kSquares * kSquares * 2 * kTile;

  BackwardScratch(float* at, const Extents& e)
      : dq(at),
        dk(dq + e.longest * e.qk_dim),
        dv(dk + e.longest * e.qk_dim),
        lse(dv + e.longest * e.v_dim),
        delta(lse + e.longest),
        scores(delta + e.longest),
        slopes(scores + 2 * kQueries * kQueries),
        p(reinterpret_cast<BFloat16*>(slopes + 2 * kQueries * kQueries)),
        ds(p + kBlock),
        ds_right(ds + kBlock),
        k(ds_right + kBlock),
        k_turned(k + e.longest * e.qk_dim),
        v(k_turned + e.longest * e.qk_dim),
        q(v + e.longest * e.v_dim),
        q_pairs(q + e.longest * e.qk_dim),
        d_o(q_pairs + e.longest * e.qk_dim),
        do_pairs(d_o + e.longest * e.v_dim) {}
  static std::int64_t bytes(const Extents& e) {
    return (e.longest * (2 * e.qk_dim + e.v_dim + 2) + 4 * kQueries * kQueries) * 4 +
           (3 * kBlock + e.longest * (4 * e.qk_dim + 3 * e.v_dim)) * 2;
  }
};

/// 32 keys by 32 queries of a block, and where its tiles go.
struct Square {
  std::int64_t key;
  std::int64_t query;
  std::int64_t left;   // in p and ds
  std::int64_t right;  // in ds_right
};

/// Scores and dP, into one of the two buffers.
void multiply(const Extents& e, const BackwardScratch& s, const Square& square, std::int64_t buffer) {
  const std::int64_t at = buffer * kQueries * kQueries;
  product<false>(s.scores + at, kQueries, {s.k + square.key * e.qk_dim, e.qk_dim * 2, 16 * e.qk_dim, 32},
                 {s.q + square.query * e.qk_dim, 16 * e.qk_dim, kTile}, e.qk_dim / 32);
  product<false>(s.slopes + at, kQueries, {s.v + square.key * e.v_dim, e.v_dim * 2, 16 * e.v_dim, 32},
                 {s.d_o + square.query * e.v_dim, 16 * e.v_dim, kTile}, e.v_dim / 32);
}

/// P and dS / scale of one square from its scores and dP.
template <bool on_diagonal>
void differentiate(const BackwardScratch& s, const Square& square, std::int64_t buffer, float factor) {
  const float* scores = s.scores + buffer * kQueries * kQueries;
  const float* slopes = s.slopes + buffer * kQueries * kQueries;
  const float* statistics[2] = {s.lse + square.query, s.delta + square.query};
  const __m512 scale = _mm512_set1_ps(factor);
  const __m512 lse[2] = {_mm512_loadu_ps(statistics[0]), _mm512_loadu_ps(statistics[0] + 16)};
  const __m512 delta[2] = {_mm512_loadu_ps(statistics[1]), _mm512_loadu_ps(statistics[1] + 16)};
  for (int r = 0; r < 16; ++r) {
    __m512i slope[2][2];
    for (int odd = 0; odd < 2; ++odd) {
      const int key = 2 * r + odd;
      __m512i probability[2];
      for (int half = 0; half < 2; ++half) {
        const std::int64_t at = key * kQueries + 16 * half;
        __m512 value = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at), scale, lse[half]));
        if constexpr (on_diagonal) value = _mm512_maskz_mov_ps(seeing(key, half), value);
        probability[half] = half_up(value);
        slope[odd][half] = half_up(_mm512_mul_ps(value, _mm512_sub_ps(_mm512_loadu_ps(slopes + at), delta[half])));
      }
      const std::int64_t tile = square.left + key / 16 * kSquares * kTile + key % 16 * 32;
      _mm512_storeu_si512(s.p + tile, pair(probability[0], probability[1]));
      _mm512_storeu_si512(s.ds + tile, pair(slope[odd][0], slope[odd][1]));
    }
    for (int half = 0; half < 2; ++half) {
      const std::int64_t tile = square.right + half * kSquares * kTile + r * 32;
      _mm512_storeu_si512(s.ds_right + tile, pair(slope[0][half], slope[1][half]));
    }
  }
}

/// A square above the diagonal is zero.
void clear(const BackwardScratch& s, const Square& square) {
  for (std::int64_t half = 0; half < 2; ++half) {
    std::fill_n(s.p + square.left + half * kSquares * kTile, kTile, BFloat16{});
    std::fill_n(s.ds + square.left + half * kSquares * kTile, kTile, BFloat16{});
    std::fill_n(s.ds_right + square.right + half * kSquares * kTile, kTile, BFloat16{});
  }
}

/// P and dS of a block. The next square's products are issued before this one's exponentials, to run beside them.
void fill_block(const Extents& e, const BackwardScratch& s, std::int64_t key, std::int64_t key_squares,
                std::int64_t query, std::int64_t query_squares, float factor) {
  Square squares[kSquares * kSquares];
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < key_squares; ++i) {
    for (std::int64_t j = 0; j < query_squares; ++j) {
      const Square square{key + 32 * i, query + 32 * j, (2 * i * kSquares + j) * kTile, (2 * j * kSquares + i) * kTile};
      if (square.query < square.key) {
        clear(s, square);
      } else {
        squares[count++] = square;
      }
    }
  }
  for (std::int64_t i = 0; i <= count; ++i) {
    if (i < count) multiply(e, s, squares[i], i % 2);
    if (i == 0) continue;
    const Square& ready = squares[i - 1];
    const auto run = ready.query == ready.key ? differentiate<true> : differentiate<false>;
    run(s, ready, (i - 1) % 2, factor);
  }
}

void backward_block(const Extents& e, std::int64_t padded, std::int64_t key, std::int64_t query, float factor,
                    const BackwardScratch& s) {
  const std::int64_t key_squares = std::min(kSquares, (padded - key) / 32);
  const std::int64_t query_squares = std::min(kSquares, (padded - query) / 32);
  fill_block(e, s, key, key_squares, query, query_squares, factor);
  for (std::int64_t i = 0; i < key_squares; ++i) {
    const std::int64_t row = key + 32 * i;
    const std::int64_t left = 2 * i * kSquares * kTile;
    for (std::int64_t j = 0; j < e.v_dim; j += 32) {
      product<true>(s.dv + row * e.v_dim + j, e.v_dim, {s.p + left, 64, kSquares * kTile, kTile},
                    {s.do_pairs + query * e.v_dim + j / 16 * kTile, kTile, 32 * e.v_dim}, query_squares);
    }
    for (std::int64_t j = 0; j < e.qk_dim; j += 32) {
      product<true>(s.dk + row * e.qk_dim + j, e.qk_dim, {s.ds + left, 64, kSquares * kTile, kTile},
                    {s.q_pairs + query * e.qk_dim + j / 16 * kTile, kTile, 32 * e.qk_dim}, query_squares);
    }
  }
  const std::int64_t group = padded / 32 * kTile;  // 16 dims of K^T
  for (std::int64_t i = 0; i < query_squares; ++i) {
    for (std::int64_t j = 0; j < e.qk_dim; j += 32) {
      product<true>(s.dq + (query + 32 * i) * e.qk_dim + j * kQueries, kQueries,
                    {s.k_turned + j / 16 * group + key / 32 * kTile, 64, group, kTile},
                    {s.ds_right + 2 * i * kSquares * kTile, kSquares * kTile, kTile}, key_squares);
    }
  }
}

void backward_head(const AttentionBackwardArgs& args, const Extents& e, const Document& document, std::int64_t head,
                   const BackwardScratch& s) {
  const std::int64_t tokens = document.tokens();
  const std::int64_t padded = round_up(tokens, 32);
  const Rows q = rows_of(args.q, document, head);
  const Rows d_o = rows_of(args.d_o, document, head);
  pack_columns(s.q, q, 0, padded, e.qk_dim);
  pack_pairs(s.q_pairs, q, padded, e.qk_dim);
  pack_columns(s.d_o, d_o, 0, padded, e.v_dim);
  pack_pairs(s.do_pairs, d_o, padded, e.v_dim);
  read_statistics(args, document, head, padded, s.lse, s.delta);
  std::memset(s.dq, 0, static_cast<std::size_t>(padded * e.qk_dim) * sizeof(float));
  const auto factor = static_cast<float>(args.scale * kLog2E);
  constexpr std::int64_t kStep = 32 * kSquares;
  for (std::int64_t key = 0; key < padded; key += kStep) {
    for (std::int64_t query = key; query < padded; query += kStep) {
      backward_block(e, padded, key, query, factor, s);
    }
  }
  const __m512 scale = _mm512_set1_ps(static_cast<float>(args.scale));
  const __m512 scales[2] = {scale, scale};
  BFloat16* dq = args.dq.as<BFloat16>() + document.begin * args.dq.strides[0] + head * args.dq.strides[1];
  for (std::int64_t query = 0; query < tokens; query += kQueries) {
    write_transposed(dq + query * args.dq.strides[0], args.dq.strides[0], s.dq + query * e.qk_dim,
                     std::min(kQueries, tokens - query), args.q.shape[2], scales);
  }
}

void backward_unit(const AttentionBackwardArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                   float* scratch) {
  const Session session;
  const BackwardScratch s(scratch, e);
  const std::int64_t tokens = document.tokens();
  const std::int64_t padded = round_up(tokens, 32);
  const Rows k = rows_of(args.k, document, kv_head);
  pack_rows(s.k, k, padded, e.qk_dim);
  pack_turned(s.k_turned, k, padded, e.qk_dim);
  pack_rows(s.v, rows_of(args.v, document, kv_head), padded, e.v_dim);
  std::memset(s.dk, 0, static_cast<std::size_t>(padded * e.qk_dim) * sizeof(float));
  std::memset(s.dv, 0, static_cast<std::size_t>(padded * e.v_dim) * sizeof(float));
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    backward_head(args, e, document, head, s);
  }
  write_rows(args.dk.as<BFloat16>() + document.begin * args.dk.strides[0] + kv_head * args.dk.strides[1],
             args.dk.strides[0], s.dk, e.qk_dim, tokens, args.k.shape[2], static_cast<float>(args.scale));
  write_rows(args.dv.as<BFloat16>() + document.begin * args.dv.strides[0] + kv_head * args.dv.strides[1],
             args.dv.strides[0], s.dv, e.v_dim, tokens, args.v.shape[2], 1.0f);
}

}  // namespace
}  // namespace shoestring::attention::amx
#pragma GCC pop_options

namespace shoestring::attention::amx {

std::int64_t backward_bytes(const Extents& extents) { return BackwardScratch::bytes(extents); }

void backward(const AttentionBackwardArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = round_up(BackwardScratch::bytes(extents), 64) / 4;
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  each_with_worker(workers, extents.kv_heads * documents.count(), [&](int worker, std::int64_t item) {
    backward_unit(args, extents, documents[item / extents.kv_heads], item % extents.kv_heads, scratch + worker * each);
  });
}

}  // namespace shoestring::attention::amx
