// Attention in FP32 in vectors; bf16 inputs are widened while they are packed. Compiled once for each instruction set.
//
// A unit of work is one key head of one document (forward: of up to 1,024 queries of it). Scores are kept transposed,
// [keys][queries] with sixteen queries in the lanes: the maximum and the sum over keys then run down the lanes and need
// no horizontal step, and a block of probabilities is at once an operand of the products that follow.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention_squares.h"
#include "kernels/attention_variants.h"
#include "kernels/base/workers.h"
#include "kernels/cpu_refusals.h"

#include "kernels/simd_target.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention_simd.cpp"
#include <hwy/foreach_target.h>

#include "kernels/attention_panels_simd.h"
#include "kernels/exp_simd.h"
#include "kernels/lanes_simd.h"

HWY_BEFORE_NAMESPACE();
namespace shoestring::attention::HWY_NAMESPACE {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// The running state of sixteen queries, in powers of two: maximum of scale * log2(e) * score, sum of 2^(that - max).
struct Running {
  Floats max;
  Floats sum;
};

/// Queries that do not see a key which stands `past` rows below the first query's own.
HWY_INLINE Mask hidden(std::int64_t past) { return mask_of(first(past)); }

/// Folds scores [keys][16] into the maximum; returns the factor that older sums must take. Row `diagonal` is the key of
/// the first query itself.
Floats raise_maximum(const float* scores, std::int64_t keys, std::int64_t diagonal, float factor, Running& running) {
  Floats highest = broadcast(kLowest);
  std::int64_t key = 0;
  for (; key < std::min(keys, diagonal + 1); ++key) highest = greater(highest, load(scores + key * kSquare));
  for (; key < keys; ++key) {
    highest = greater(highest, select(hidden(key - diagonal), broadcast(kLowest), load(scores + key * kSquare)));
  }
  const Floats raised = greater(running.max, highest * broadcast(factor));
  const Floats correction = exp2(running.max - raised);
  running.max = raised;
  running.sum = running.sum * correction;
  return correction;
}

/// Probabilities, not yet divided by their sum, in place of scores; their sum is added to the running one.
void exponentiate(float* scores, std::int64_t keys, std::int64_t diagonal, float factor, Running& running) {
  const Floats scale = broadcast(factor);
  std::int64_t key = 0;
  for (; key < std::min(keys, diagonal + 1); ++key) {
    const Floats p = exp2(fms(load(scores + key * kSquare), scale, running.max));
    running.sum = running.sum + p;
    store(scores + key * kSquare, p);
  }
  for (; key < keys; ++key) {
    const Floats p = drop(hidden(key - diagonal), exp2(fms(load(scores + key * kSquare), scale, running.max)));
    running.sum = running.sum + p;
    store(scores + key * kSquare, p);
  }
}

/// sums [rows][16] *= correction, lane by lane; nothing to do where no maximum moved.
void correct(float* sums, std::int64_t rows, Floats correction) {
  if (all(correction == broadcast(1.0f))) return;
  for (std::int64_t i = 0; i < rows; ++i) store(sums + i * kSquare, load(sums + i * kSquare) * correction);
}

/// lse of up to 32 queries in natural logarithms, and the factors that make sums of values means.
void finish(const Running* running, std::int64_t queries, float* lse, float* inverse) {
  alignas(64) float max[kQueries], sum[kQueries];
  for (std::int64_t half = 0; half < kQueries / kSquare; ++half) {
    store(max + half * kSquare, running[half].max);
    store(sum + half * kSquare, running[half].sum);
    store(inverse + half * kSquare, broadcast(1.0f) / running[half].sum);
  }
  for (std::int64_t i = 0; i < queries; ++i) {
    lse[i] = static_cast<float>(static_cast<double>(max[i]) / kLog2E + std::log(static_cast<double>(sum[i])));
  }
}

template <class T>
void forward_queries(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t head,
                     std::int64_t query, const ForwardScratch& s) {
  const std::int64_t queries = std::min(kQueries, document.tokens() - query);
  pack<T>(s.q_rows, args.q, head, document.begin + query, queries, kQueries);
  turn(s.q, s.q_rows, kQueries, e.qk_dim);
  const auto factor = static_cast<float>(args.scale * kLog2E);
  Running running[kQueries / kSquare];
  for (Running& column : running) column = {broadcast(kLowest), zeros()};
  const std::int64_t visible = query + kQueries;
  for (std::int64_t begin = 0; begin < visible; begin += kForwardKeys) {
    const std::int64_t keys = std::min(kForwardKeys, visible - begin);
    panel<Left::straight>(s.scores, s.k.from(begin, 0), s.q, keys, kQueries, round_up(args.q.shape[2], kSquare), true);
    for (std::int64_t column = 0; column < kQueries; column += kSquare) {
      float* scores = s.scores.from(0, column).data;
      Running& state = running[column / kSquare];
      const Floats correction = raise_maximum(scores, keys, query + column - begin, factor, state);
      if (begin > 0) correct(s.o.from(0, column).data, e.v_dim, correction);
      exponentiate(scores, keys, query + column - begin, factor, state);
    }
    panel<Left::turned>(s.o, s.v.from(begin, 0), s.scores, e.v_dim, kQueries, keys, begin == 0);
  }
  const std::int64_t token = document.begin + query;
  alignas(64) float inverse[kQueries];
  finish(running, queries, args.lse.as<float>() + head * args.q.shape[0] + token, inverse);
  write_turned(args.o.as<T>() + token * args.o.strides[0] + head * args.o.strides[1], args.o.strides[0], s.o, queries,
               args.v.shape[2], inverse);
}

template <class T>
void forward_unit(const AttentionArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                  std::int64_t begin, std::int64_t end, float* scratch) {
  const ForwardScratch s(scratch, e);
  const std::int64_t keys = std::min(end, document.tokens());
  pack<T>(s.k, args.k, kv_head, document.begin, keys, round_up(keys, kQueries));
  pack<T>(s.v, args.v, kv_head, document.begin, keys, round_up(keys, kQueries));
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    for (std::int64_t query = begin; query < keys; query += kQueries) {
      forward_queries<T>(args, e, document, head, query, s);
    }
  }
}

/// lse * log2(e) and d_o . o of every query. Queries past the document get an lse of +infinity, so that their
/// probabilities are 0.
template <class T>
void read_statistics(const AttentionBackwardArgs& args, const Document& document, std::int64_t head,
                     std::int64_t padded, float* lse, float* delta) {
  const std::int64_t v_dim = args.v.shape[2];
  const float* given = args.lse.as<float>() + head * args.q.shape[0] + document.begin;
  for (std::int64_t i = 0; i < padded; ++i) {
    lse[i] = std::numeric_limits<float>::infinity();
    delta[i] = 0.0f;
    if (i >= document.tokens()) continue;
    lse[i] = static_cast<float>(static_cast<double>(given[i]) * kLog2E);
    const std::int64_t token = document.begin + i;
    const T* d_o = args.d_o.as<T>() + token * args.d_o.strides[0] + head * args.d_o.strides[1];
    const T* o = args.o.as<T>() + token * args.o.strides[0] + head * args.o.strides[1];
    Floats products = zeros();
    for (std::int64_t j = 0; j < v_dim; j += kSquare) {
      const First inside = first(v_dim - j);
      products = fma(load(d_o + j, inside), load(o + j, inside), products);
    }
    delta[i] = sum(products);
  }
}

/// From scores and dP to P and dS / scale, [keys][16] each.
void differentiate(float* p, float* ds, std::int64_t keys, std::int64_t diagonal, float factor, const float* lse,
                   const float* delta) {
  const Floats scale = broadcast(factor), shift = load(lse), mean = load(delta);
  std::int64_t key = 0;
  for (; key < std::min(keys, diagonal + 1); ++key) {
    const Floats value = exp2(fms(load(p + key * kSquare), scale, shift));
    store(p + key * kSquare, value);
    store(ds + key * kSquare, value * (load(ds + key * kSquare) - mean));
  }
  for (; key < keys; ++key) {
    const Floats value = drop(hidden(key - diagonal), exp2(fms(load(p + key * kSquare), scale, shift)));
    store(p + key * kSquare, value);
    store(ds + key * kSquare, value * (load(ds + key * kSquare) - mean));
  }
}

struct Range {
  std::int64_t begin;
  std::int64_t count;
};

void backward_block(const AttentionBackwardArgs& args, const Extents& e, Range keys, Range queries,
                    const BackwardScratch& s) {
  const std::int64_t qk_dim = round_up(args.q.shape[2], kSquare), v_dim = round_up(args.v.shape[2], kSquare);
  panel<Left::straight>(s.p, s.k.from(keys.begin, 0), s.q.from(0, queries.begin), keys.count, queries.count, qk_dim,
                        true);
  panel<Left::straight>(s.ds, s.v.from(keys.begin, 0), s.d_o.from(0, queries.begin), keys.count, queries.count, v_dim,
                        true);
  for (std::int64_t column = 0; column < queries.count; column += kSquare) {
    const std::int64_t query = queries.begin + column;
    differentiate(s.p.from(0, column).data, s.ds.from(0, column).data, keys.count, query - keys.begin,
                  static_cast<float>(args.scale * kLog2E), s.lse + query, s.delta + query);
  }
  panel<Left::straight>(s.dv.from(keys.begin, 0), s.p, s.do_rows.from(queries.begin, 0), keys.count, e.v_dim,
                        queries.count, false);
  panel<Left::straight>(s.dk.from(keys.begin, 0), s.ds, s.q_rows.from(queries.begin, 0), keys.count, e.qk_dim,
                        queries.count, false);
  panel<Left::turned>(s.dq.from(0, queries.begin), s.k.from(keys.begin, 0), s.ds, e.qk_dim, queries.count, keys.count,
                      keys.begin == 0);
}

/// All blocks of one head. On the diagonal a block is cut in two, so that half of what no query sees is left out.
void backward_blocks(const AttentionBackwardArgs& args, const Extents& e, std::int64_t padded,
                     const BackwardScratch& s) {
  for (std::int64_t key = 0; key < padded; key += kBlock) {
    const std::int64_t keys = std::min(kBlock, padded - key);
    for (std::int64_t part = 0; part < keys; part += kQueries) {
      backward_block(args, e, {key + part, kQueries}, {key + part, keys - part}, s);
    }
    for (std::int64_t query = key + kBlock; query < padded; query += kBlock) {
      backward_block(args, e, {key, keys}, {query, std::min(kBlock, padded - query)}, s);
    }
  }
}

void clear(Squares matrix, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; j += kSquare) {
    std::fill_n(matrix.from(0, j).data, rows * kSquare, 0.0f);
  }
}

template <class T>
void backward_unit(const AttentionBackwardArgs& args, const Extents& e, const Document& document, std::int64_t kv_head,
                   float* scratch) {
  const BackwardScratch s(scratch, e);
  const std::int64_t tokens = document.tokens();
  const std::int64_t padded = round_up(tokens, kQueries);
  const auto scale = static_cast<float>(args.scale);
  pack<T>(s.k, args.k, kv_head, document.begin, tokens, padded);
  pack<T>(s.v, args.v, kv_head, document.begin, tokens, padded);
  clear(s.dk, padded, e.qk_dim);
  clear(s.dv, padded, e.v_dim);
  alignas(64) float factors[kQueries];
  std::fill(factors, factors + kQueries, scale);
  for (std::int64_t head = kv_head * e.group(); head < (kv_head + 1) * e.group(); ++head) {
    pack<T>(s.q_rows, args.q, head, document.begin, tokens, padded);
    turn(s.q, s.q_rows, padded, e.qk_dim);
    pack<T>(s.do_rows, args.d_o, head, document.begin, tokens, padded);
    turn(s.d_o, s.do_rows, padded, e.v_dim);
    read_statistics<T>(args, document, head, padded, s.lse, s.delta);
    backward_blocks(args, e, padded, s);
    T* dq = args.dq.as<T>() + document.begin * args.dq.strides[0] + head * args.dq.strides[1];
    for (std::int64_t query = 0; query < tokens; query += kQueries) {
      write_turned(dq + query * args.dq.strides[0], args.dq.strides[0], s.dq.from(0, query),
                   std::min(kQueries, tokens - query), args.q.shape[2], factors);
    }
  }
  write_rows(args.dk.as<T>() + document.begin * args.dk.strides[0] + kv_head * args.dk.strides[1], args.dk.strides[0],
             s.dk, tokens, args.k.shape[2], scale);
  write_rows(args.dv.as<T>() + document.begin * args.dv.strides[0] + kv_head * args.dv.strides[1], args.dv.strides[0],
             s.dv, tokens, args.v.shape[2], 1.0f);
}

}  // namespace

void forward(const AttentionArgs& args, const Extents& extents, const Document& document, std::int64_t kv_head,
             std::int64_t begin, std::int64_t end, float* scratch) {
  args.q.dtype == DType::f32 ? forward_unit<float>(args, extents, document, kv_head, begin, end, scratch)
                             : forward_unit<BFloat16>(args, extents, document, kv_head, begin, end, scratch);
}

void backward(const AttentionBackwardArgs& args, const Extents& extents, const Document& document, std::int64_t kv_head,
              float* scratch) {
  args.q.dtype == DType::f32 ? backward_unit<float>(args, extents, document, kv_head, scratch)
                             : backward_unit<BFloat16>(args, extents, document, kv_head, scratch);
}

}  // namespace shoestring::attention::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shoestring::attention::simd {

template <class Args>
std::string refuses_tensors(const Args& args) {
  if (args.q.device.kind != DeviceKind::cpu) return "the tensors are on a GPU";
  return needs_simd(args, args.q.dtype);
}
std::string refuses(const AttentionArgs& args) { return refuses_tensors(args); }
std::string refuses(const AttentionBackwardArgs& args) { return refuses_tensors(args); }

std::int64_t worker_bytes(const Extents& extents) {
  const std::int64_t floats =
      std::max(ForwardScratch(nullptr, extents).floats, BackwardScratch(nullptr, extents).floats);
  return Arena::footprint(floats * size_bytes(DType::f32));
}

void forward(const AttentionArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = ForwardScratch(nullptr, extents).floats;
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  const std::int64_t parts = (documents.longest() + kForwardRows - 1) / kForwardRows;
  const auto unit = SHOESTRING_SIMD(forward);
  each_with_worker(workers, extents.kv_heads * documents.count() * parts, [&](int worker, std::int64_t item) {
    const std::int64_t kv_head = item % extents.kv_heads;  // neighbouring heads share pages and prefetches
    const std::int64_t part = item / extents.kv_heads;
    const Document document = documents[part / parts];
    const std::int64_t begin = (parts - 1 - part % parts) * kForwardRows;  // long units first
    if (begin >= document.tokens()) return;
    unit(args, extents, document, kv_head, begin, begin + kForwardRows, scratch + worker * each);
  });
}

void backward(const AttentionBackwardArgs& args) {
  const Arena::Scope scope(args.scratch);
  const Documents documents(args.segment_start, args.scratch);
  const Extents extents = padded_extents(args.q, args.k, args.v, documents.longest());
  Workers& workers = args.stream.workers();
  const std::int64_t each = BackwardScratch(nullptr, extents).floats;
  float* scratch = args.scratch.take(DType::f32, {workers.count(), each}).as<float>();
  const auto unit = SHOESTRING_SIMD(backward);
  each_with_worker(workers, extents.kv_heads * documents.count(), [&](int worker, std::int64_t item) {
    unit(args, extents, documents[item / extents.kv_heads], item % extents.kv_heads, scratch + worker * each);
  });
}

}  // namespace shoestring::attention::simd
#endif
