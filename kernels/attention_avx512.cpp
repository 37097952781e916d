// Attention in FP32 on AVX-512; bf16 inputs are widened while they are packed.
//
// A unit of work is one key head of one document (forward: of up to 1,024 queries of it). Queries go in blocks of 32,
// which fill two registers; every product, forward and backward, is the same panel: C[m][32] += sum_k A(m, k) B[k][32].
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/attention_blocks_avx512.h"
#include "kernels/attention_variants.h"
#include "kernels/base/cpu.h"
#include "kernels/base/workers.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq")

namespace shoestring::attention::avx512 {
namespace {

using namespace blocks;

/// The left operand of a panel: element (m, k) at data[m * row + k * column].
struct Left {
  const float* data;
  std::int64_t row;
  std::int64_t column;
};

/// c[m][32] += sum_k a(m, k) b[k][32], k in order; m is a multiple of 8.
void panel(float* c, std::int64_t c_row, const Left& a, const float* b, std::int64_t b_row, std::int64_t m,
           std::int64_t k) {
  for (std::int64_t i = 0; i < m; i += 8) {
    __m512 sum[8][2];
    for (int r = 0; r < 8; ++r) {
      for (int half = 0; half < 2; ++half) sum[r][half] = _mm512_loadu_ps(c + (i + r) * c_row + 16 * half);
    }
    const float* left = a.data + i * a.row;
    for (std::int64_t j = 0; j < k; ++j) {
      const __m512 low = _mm512_loadu_ps(b + j * b_row);
      const __m512 high = _mm512_loadu_ps(b + j * b_row + 16);
      for (int r = 0; r < 8; ++r) {
        const __m512 value = _mm512_set1_ps(left[r * a.row + j * a.column]);
        sum[r][0] = _mm512_fmadd_ps(value, low, sum[r][0]);
        sum[r][1] = _mm512_fmadd_ps(value, high, sum[r][1]);
      }
    }
    for (int r = 0; r < 8; ++r) {
      for (int half = 0; half < 2; ++half) _mm512_storeu_ps(c + (i + r) * c_row + 16 * half, sum[r][half]);
    }
  }
}

/// Rows of one head of a document, widened, zero up to `padded` rows and `columns` columns.
template <class T>
void pack_rows(float* to, std::int64_t columns, std::int64_t padded, const ConstTensorView& view, std::int64_t head,
               std::int64_t begin, std::int64_t rows) {
  const std::int64_t dims = view.shape[2];
  for (std::int64_t i = 0; i < padded; ++i) {
    const T* from = view.as<T>() + (begin + i) * view.strides[0] + head * view.strides[1];
    for (std::int64_t j = 0; j < columns; j += 16) {
      const __mmask16 mask = i < rows ? lanes::first(std::max<std::int64_t>(dims - j, 0)) : __mmask16{0};
      _mm512_storeu_ps(to + i * columns + j, mask == 0 ? _mm512_setzero_ps() : lanes::load(from + j, mask));
    }
  }
}

/// to[block of 32 rows][column][32] from packed rows.
void transpose_blocks(float* to, const float* rows, std::int64_t columns, std::int64_t padded) {
  for (std::int64_t i = 0; i < padded; i += 16) {
    float* block = to + i / kQueries * kQueries * columns + i % kQueries;
    for (std::int64_t j = 0; j < columns; j += 16) {
      __m512i square[16];
      for (int r = 0; r < 16; ++r) square[r] = _mm512_loadu_si512(rows + (i + r) * columns + j);
      transpose16(square);
      for (int r = 0; r < 16; ++r) _mm512_storeu_si512(block + (j + r) * kQueries, square[r]);
    }
  }
}

struct ForwardScratch {
  float* k;       // [longest][qk]
  float* v;       // [longest][v]
  float* q_rows;  // [32][qk]
  float* q;       // [qk][32]
  float* o;       // [v][32]
  float* scores;  // [keys][32]

  ForwardScratch(float* at, const Extents& e)
      : k(at),
        v(k + e.longest * e.qk_dim),
        q_rows(v + e.longest * e.v_dim),
        q(q_rows + kQueries * e.qk_dim),
        o(q + kQueries * e.qk_dim),
        scores(o + kQueries * e.v_dim) {}
  static std::int64_t floats(const Extents& e) {
    return (e.longest + 2 * kQueries) * (e.qk_dim + e.v_dim) + kForwardKeys * kQueries;
  }
};

/// probabilities in place of scores; their sums go to `running`.
void exponentiate(float* scores, std::int64_t keys, std::int64_t diagonal, float factor, Running& running) {
  for (std::int64_t key = 0; key < keys; ++key) {
    for (int half = 0; half < 2; ++half) {
      float* at = scores + key * kQueries + 16 * half;
      const __m512 power = _mm512_fmsub_ps(_mm512_loadu_ps(at), _mm512_set1_ps(factor), running.max[half]);
      const __m512 p = _mm512_maskz_mov_ps(seeing(key - diagonal, half), exp2(power));
      running.sum[half] = _mm512_add_ps(running.sum[half], p);
      _mm512_storeu_ps(at, p);
    }
  }
}

template <class T>
void forward_queries(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t head,
                     std::int64_t first, const ForwardScratch& s) {
  const std::int64_t queries = std::min(kQueries, document.tokens() - first);
  pack_rows<T>(s.q_rows, e.qk_dim, kQueries, args.q, head, document.begin + first, queries);
  transpose_blocks(s.q, s.q_rows, e.qk_dim, kQueries);
  std::memset(s.o, 0, static_cast<std::size_t>(e.v_dim * kQueries) * sizeof(float));
  const auto factor = static_cast<float>(args.scale * kLog2E);
  Running running = start();
  const std::int64_t visible = first + kQueries;
  for (std::int64_t begin = 0; begin < visible; begin += kForwardKeys) {
    const std::int64_t keys = std::min(kForwardKeys, visible - begin);
    std::memset(s.scores, 0, static_cast<std::size_t>(keys * kQueries) * sizeof(float));
    panel(s.scores, kQueries, {s.k + begin * e.qk_dim, e.qk_dim, 1}, s.q, kQueries, keys, args.q.shape[2]);
    __m512 correction[2];
    raise_maximum(s.scores, keys, first - begin, factor, running, correction);
    correct(s.o, e.v_dim, correction);
    exponentiate(s.scores, keys, first - begin, factor, running);
    panel(s.o, kQueries, {s.v + begin * e.v_dim, 1, e.v_dim}, s.scores, kQueries, e.v_dim, keys);
  }
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 inverse[2] = {_mm512_div_ps(one, running.sum[0]), _mm512_div_ps(one, running.sum[1])};
  const std::int64_t token = document.begin + first;
  write_transposed(args.o.as<T>() + token * args.o.strides[0] + head * args.o.strides[1], args.o.strides[0], s.o,
                   queries, args.v.shape[2], inverse);
  write_lse(args.lse.as<float>() + head * args.q.shape[0] + token, running, queries);
}

template <class T>
void forward_unit(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                  std::int64_t first, std::int64_t last, float* scratch) {
  const ForwardScratch s(scratch, e);
  const std::int64_t keys = std::min(last, document.tokens());
  pack_rows<T>(s.k, e.qk_dim, round_up(keys, kQueries), args.k, kv_head, document.begin, keys);
  pack_rows<T>(s.v, e.v_dim, round_up(keys, kQueries), args.v, kv_head, document.begin, keys);
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    for (std::int64_t query = first; query < keys; query += kQueries) {
      forward_queries<T>(args, e, document, head, query, s);
    }
  }
}

struct BackwardScratch {
  float* k;        // [longest][qk]
  float* v;        // [longest][v]
  float* q_rows;   // [longest][qk]
  float* q;        // [block][qk][32]
  float* do_rows;  // [longest][v]
  float* d_o;      // [block][v][32]
  float* dq;       // [block][qk][32]
  float* dk;       // [longest][qk]
  float* dv;       // [longest][v]
  float* lse;      // [longest]
  float* delta;    // [longest]
  float* p;        // [32 keys][32]
  float* ds;       // [32 keys][32]

  BackwardScratch(float* at, const Extents& e)
      : k(at),
        v(k + e.longest * e.qk_dim),
        q_rows(v + e.longest * e.v_dim),
        q(q_rows + e.longest * e.qk_dim),
        do_rows(q + e.longest * e.qk_dim),
        d_o(do_rows + e.longest * e.v_dim),
        dq(d_o + e.longest * e.v_dim),
        dk(dq + e.longest * e.qk_dim),
        dv(dk + e.longest * e.qk_dim),
        lse(dv + e.longest * e.v_dim),
        delta(lse + e.longest),
        p(delta + e.longest),
        ds(p + kQueries * kQueries) {}
  static std::int64_t floats(const Extents& e) {
    return e.longest * (5 * e.qk_dim + 4 * e.v_dim + 2) + 2 * kQueries * kQueries;
  }
};

/// From scores and dP to P and dS / scale, [32 keys][32 queries] each.
void differentiate(float* p, float* ds, std::int64_t diagonal, float factor, const float* lse, const float* delta) {
  for (std::int64_t key = 0; key < kQueries; ++key) {
    for (int half = 0; half < 2; ++half) {
      const std::int64_t at = key * kQueries + 16 * half;
      const __m512 power =
          _mm512_fmsub_ps(_mm512_loadu_ps(p + at), _mm512_set1_ps(factor), _mm512_loadu_ps(lse + 16 * half));
      const __m512 value = _mm512_maskz_mov_ps(seeing(key - diagonal, half), exp2(power));
      const __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(ds + at), _mm512_loadu_ps(delta + 16 * half));
      _mm512_storeu_ps(p + at, value);
      _mm512_storeu_ps(ds + at, _mm512_mul_ps(value, slope));
    }
  }
}

void backward_block(const AttentionBackwardArgs& args, const Extents& e, std::int64_t key, std::int64_t query,
                    const BackwardScratch& s) {
  std::memset(s.p, 0, 2 * kQueries * kQueries * sizeof(float));  // ds lies behind p
  panel(s.p, kQueries, {s.k + key * e.qk_dim, e.qk_dim, 1}, s.q + query * e.qk_dim, kQueries, kQueries,
        args.q.shape[2]);
  panel(s.ds, kQueries, {s.v + key * e.v_dim, e.v_dim, 1}, s.d_o + query * e.v_dim, kQueries, kQueries,
        args.v.shape[2]);
  differentiate(s.p, s.ds, query == key ? 0 : kNoDiagonal, static_cast<float>(args.scale * kLog2E), s.lse + query,
                s.delta + query);
  for (std::int64_t j = 0; j < e.v_dim; j += 32) {
    panel(s.dv + key * e.v_dim + j, e.v_dim, {s.p, kQueries, 1}, s.do_rows + query * e.v_dim + j, e.v_dim, kQueries,
          kQueries);
  }
  for (std::int64_t j = 0; j < e.qk_dim; j += 32) {
    panel(s.dk + key * e.qk_dim + j, e.qk_dim, {s.ds, kQueries, 1}, s.q_rows + query * e.qk_dim + j, e.qk_dim, kQueries,
          kQueries);
  }
  panel(s.dq + query * e.qk_dim, kQueries, {s.k + key * e.qk_dim, 1, e.qk_dim}, s.ds, kQueries, e.qk_dim, kQueries);
}

template <class T>
void backward_unit(const AttentionBackwardArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                   float* scratch) {
  const BackwardScratch s(scratch, e);
  const std::int64_t tokens = document.tokens();
  const std::int64_t padded = round_up(tokens, kQueries);
  const auto scale = static_cast<float>(args.scale);
  pack_rows<T>(s.k, e.qk_dim, padded, args.k, kv_head, document.begin, tokens);
  pack_rows<T>(s.v, e.v_dim, padded, args.v, kv_head, document.begin, tokens);
  std::memset(s.dk, 0, static_cast<std::size_t>(padded * e.qk_dim) * sizeof(float));
  std::memset(s.dv, 0, static_cast<std::size_t>(padded * e.v_dim) * sizeof(float));
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    pack_rows<T>(s.q_rows, e.qk_dim, padded, args.q, head, document.begin, tokens);
    transpose_blocks(s.q, s.q_rows, e.qk_dim, padded);
    pack_rows<T>(s.do_rows, e.v_dim, padded, args.d_o, head, document.begin, tokens);
    transpose_blocks(s.d_o, s.do_rows, e.v_dim, padded);
    read_statistics<T>(args, document, head, padded, s.lse, s.delta);
    std::memset(s.dq, 0, static_cast<std::size_t>(padded * e.qk_dim) * sizeof(float));
    for (std::int64_t key = 0; key < padded; key += kQueries) {
      for (std::int64_t query = key; query < padded; query += kQueries) backward_block(args, e, key, query, s);
    }
    const __m512 factor[2] = {_mm512_set1_ps(scale), _mm512_set1_ps(scale)};
    T* dq = args.dq.as<T>() + document.begin * args.dq.strides[0] + head * args.dq.strides[1];
    for (std::int64_t query = 0; query < tokens; query += kQueries) {
      write_transposed(dq + query * args.dq.strides[0], args.dq.strides[0], s.dq + query * e.qk_dim,
                       std::min(kQueries, tokens - query), args.q.shape[2], factor);
    }
  }
  write_rows(args.dk.as<T>() + document.begin * args.dk.strides[0] + kv_head * args.dk.strides[1], args.dk.strides[0],
             s.dk, e.qk_dim, tokens, args.k.shape[2], scale);
  write_rows(args.dv.as<T>() + document.begin * args.dv.strides[0] + kv_head * args.dv.strides[1], args.dv.strides[0],
             s.dv, e.v_dim, tokens, args.v.shape[2], 1.0f);
}

}  // namespace
}  // namespace shoestring::attention::avx512
#pragma GCC pop_options

namespace shoestring::attention::avx512 {
namespace {

std::string refuses_tensors(const ConstTensorView& q) {
  if (q.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  if (!cpu_features().avx512) return "the processor lacks AVX-512";
  if (q.dtype == DType::f64) return "f64 is served by the reference only";
  return {};
}

}  // namespace

std::string refuses(const AttentionArgs& args) { return refuses_tensors(args.q); }
std::string refuses(const AttentionBackwardArgs& args) { return refuses_tensors(args.q); }

std::int64_t worker_bytes(const Extents& extents) {
  const std::int64_t floats = std::max(ForwardScratch::floats(extents), BackwardScratch::floats(extents));
  return Arena::footprint(floats * size_bytes(DType::f32));
}

void forward(const AttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = round_up(ForwardScratch::floats(extents), 16);
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  const std::int64_t parts = (documents.longest() + kForwardRows - 1) / kForwardRows;
  each_with_worker(workers, extents.kv_heads * documents.count() * parts, [&](int worker, std::int64_t item) {
    const std::int64_t kv_head = item % extents.kv_heads;  // neighbouring heads share pages and prefetches
    const std::int64_t part = item / extents.kv_heads;
    const Document document = documents[part / parts];
    const std::int64_t first = (parts - 1 - part % parts) * kForwardRows;  // long units first
    if (first >= document.tokens()) return;
    const std::int64_t last = first + kForwardRows;
    if (args.q.dtype == DType::f32) {
      forward_unit<float>(args, extents, document, kv_head, first, last, scratch + worker * each);
    } else {
      forward_unit<BFloat16>(args, extents, document, kv_head, first, last, scratch + worker * each);
    }
  });
}

void backward(const AttentionBackwardArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = round_up(BackwardScratch::floats(extents), 16);
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  each_with_worker(workers, extents.kv_heads * documents.count(), [&](int worker, std::int64_t item) {
    const Document document = documents[item / extents.kv_heads];
    const std::int64_t kv_head = item % extents.kv_heads;
    if (args.q.dtype == DType::f32) {
      backward_unit<float>(args, extents, document, kv_head, scratch + worker * each);
    } else {
      backward_unit<BFloat16>(args, extents, document, kv_head, scratch + worker * each);
    }
  });
}

}  // namespace shoestring::attention::avx512
