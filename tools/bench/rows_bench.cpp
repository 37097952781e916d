#include "tools/bench/rows_bench.h"

#include <cmath>
#include <cstdint>
#include <string>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/base/random.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/permute.h"
#include "kernels/quantize.h"
#include "kernels/quantized_gemm.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/swiglu.h"
#include "tools/bench/rows_beside.h"
#include "tools/bench/timed_products.h"

// Sizes are those of a small model on a CPU: 1024 tokens, 768 wide, in the caches of a core or a little over.
namespace shoestring {
namespace {

constexpr std::int64_t kTokens = 1024;
constexpr std::int64_t kHidden = 768;
constexpr std::int64_t kVocabulary = 4096;
constexpr DType kFormats[] = {DType::f32, DType::bf16};

Tensor ids_below(const Shape& shape, std::int64_t end) {
  Tensor ids(DType::i32, shape);
  const Random numbers(2, Purpose::test);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    ids.as<std::int32_t>()[i] =
        static_cast<std::int32_t>(numbers.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(end)));
  }
  return ids;
}

std::string sized(const char* op, DType dtype, std::int64_t rows, std::int64_t columns) {
  return fmt::format("{} {} [{}, {}]", op, name(dtype), rows, columns);
}

void attention(RowsBeside& rows, DType dtype) {
  constexpr std::int64_t heads = 4, kv_heads = 2, dim = 64;
  const Tensor q = random_matrix(dtype, {kTokens, heads, dim}), k = random_matrix(dtype, {kTokens, kv_heads, dim}),
               v = random_matrix(dtype, {kTokens, kv_heads, dim}), d_o = random_matrix(dtype, {kTokens, heads, dim});
  Tensor o(dtype, q.shape()), lse(DType::f32, {heads, kTokens}), dq(dtype, q.shape()), dk(dtype, k.shape()),
      dv(dtype, v.shape());
  const Tensor starts(DType::i32, {kTokens});  // one document
  Arena scratch(attention_scratch_bytes({kTokens, 0, heads, kv_heads, dim, dim}, rows.stream.workers().count()),
                Device{});
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  const double pairs = 0.5 * kTokens * kTokens * heads;
  const std::string shape = fmt::format(" {} [{}, {} over {}, {}]", name(dtype), kTokens, heads, kv_heads, dim);
  rows.time("attention_forward" + shape, pairs * 4 * dim, "GFLOP/s", attention_forward_variants(),
            {o, lse, q, k, v, starts, scale, scratch, rows.stream});
  rows.time("attention_backward" + shape, pairs * 10 * dim, "GFLOP/s", attention_backward_variants(),
            {dq, dk, dv, d_o, q, k, v, o, lse, starts, scale, scratch, rows.stream});
}

void cross_entropies(RowsBeside& rows, DType dtype) {
  const Tensor logits = random_matrix(dtype, {kTokens, kVocabulary}), targets = ids_below({kTokens}, kVocabulary);
  Tensor dlogits(dtype, logits.shape()), loss(DType::f32, {kTokens}), lse(DType::f32, {kTokens});
  Tensor largest(DType::f32, {kTokens}), sum(DType::f32, {kTokens}), target(DType::f32, {kTokens});
  const double elements = kTokens * kVocabulary;
  const auto named = [&](const char* op) { return sized(op, dtype, kTokens, kVocabulary); };
  rows.time(named("cross_entropy"), elements, "Gelem/s", cross_entropy_variants(),
            {loss, lse, {}, {}, dlogits, logits, targets, 1.0, rows.stream});
  cross_entropy_begin(largest, sum, target, rows.stream);
  rows.time(named("cross_entropy_chunk"), elements, "Gelem/s", cross_entropy_chunk_variants(),
            {largest, sum, target, logits, targets, 0, rows.stream});
  rows.time(named("cross_entropy_chunk_gradient"), elements, "Gelem/s", cross_entropy_chunk_gradient_variants(),
            {dlogits, logits, lse, targets, 0, 1.0, rows.stream});
}

void embeddings(RowsBeside& rows, DType dtype) {
  const Tensor table = random_matrix(DType::f32, {kVocabulary, kHidden}), ids = ids_below({kTokens}, kVocabulary);
  const Tensor dy = random_matrix(dtype, {kTokens, kHidden});
  Tensor y(dtype, dy.shape()), dtable(DType::f32, table.shape());
  const double elements = kTokens * kHidden;
  rows.time(sized("embedding_forward", dtype, kTokens, kHidden), elements, "Gelem/s", embedding_forward_variants(),
            {y, table, ids, rows.stream});
  rows.time(sized("embedding_backward", dtype, kTokens, kHidden), elements, "Gelem/s", embedding_backward_variants(),
            {dtable, dy, ids, rows.stream});
}

void experts(RowsBeside& rows, DType dtype) {
  constexpr std::int64_t count = 16, k = 4;
  const Tensor logits = random_matrix(DType::f32, {kTokens, count}), x = random_matrix(dtype, {kTokens, kHidden}),
               yp = random_matrix(dtype, {kTokens * k, kHidden});
  Tensor indices(DType::i32, {kTokens, k}), weights(DType::f32, {kTokens, k}), scores(DType::f32, logits.shape());
  const RouterArgs route{.indices = indices,
                         .weights = weights,
                         .scores = scores,
                         .logits = logits,
                         .kind = RouterKind::sigmoid,
                         .groups = 4,
                         .topk_groups = 2,
                         .normalize = true,
                         .stream = rows.stream};
  router_forward(route);
  PermutationStorage plan(kTokens, k, count);
  plan_permutation(plan.view(), indices, rows.stream);
  Tensor xp(dtype, yp.shape()), y(dtype, x.shape());
  const double elements = kTokens * k * kHidden;
  rows.time(sized("gather_rows", dtype, kTokens * k, kHidden), elements, "Gelem/s", gather_rows_variants(),
            {.xp = xp, .x = x, .plan = plan.view(), .stream = rows.stream});
  rows.time(sized("combine_rows", dtype, kTokens * k, kHidden), elements, "Gelem/s", combine_rows_variants(),
            {.y = y, .yp = yp, .plan = plan.view(), .weights = weights, .stream = rows.stream});
  if (dtype != DType::f32) return;
  const Tensor dweights = random_matrix(DType::f32, {kTokens, k});
  Tensor dlogits(DType::f32, logits.shape());
  rows.time("router_forward f32 [1024, 16], 4 of 16", kTokens * count, "Gelem/s", router_forward_variants(), route);
  rows.time("router_gradient f32 [1024, 16], 4 of 16", kTokens * count, "Gelem/s", router_gradient_variants(),
            {.dlogits = dlogits,
             .dweights = dweights,
             .indices = indices,
             .scores = scores,
             .kind = RouterKind::sigmoid,
             .normalize = true,
             .stream = rows.stream});
}

void norms(RowsBeside& rows, DType dtype) {
  const Tensor x = random_matrix(dtype, {kTokens, kHidden}), dy = random_matrix(dtype, {kTokens, kHidden}),
               gamma = random_matrix(DType::f32, {kHidden});
  Tensor y(dtype, x.shape()), rstd(DType::f32, {kTokens}), dx(dtype, x.shape()), dgamma(DType::f32, {kHidden});
  const double elements = kTokens * kHidden;
  const auto named = [&](const char* op) { return sized(op, dtype, kTokens, kHidden); };
  rows.time(named("rms_norm_forward"), elements, "Gelem/s", rms_norm_forward_variants(),
            {.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6f, .stream = rows.stream});
  rows.time(named("rms_norm_input_gradient"), elements, "Gelem/s", rms_norm_input_gradient_variants(),
            {.dx = dx, .dy = dy, .x = x, .gamma = gamma, .rstd = rstd, .stream = rows.stream});
  rows.time(named("rms_norm_weight_gradient"), elements, "Gelem/s", rms_norm_weight_gradient_variants(),
            {.dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .stream = rows.stream});
}

void rotations(RowsBeside& rows, DType dtype) {
  constexpr std::int64_t heads = 12, dim = 64;
  Tensor x = random_matrix(dtype, {kTokens, heads, dim});
  const Tensor positions = ids_below({kTokens}, kTokens);
  for (const RopeStyle style : {RopeStyle::half_split, RopeStyle::interleaved}) {
    const RopeTable table = make_rope_table({.dim = dim, .style = style}, kTokens);
    const char* how = style == RopeStyle::half_split ? "half split" : "interleaved";
    rows.time(fmt::format("rope {} {} [{}, {}, {}]", how, name(dtype), kTokens, heads, dim), kTokens * heads * dim,
              "Gelem/s", rope_variants(), {x, positions, table, false, rows.stream});
  }
}

void activations(RowsBeside& rows, DType dtype) {
  constexpr std::int64_t f = 2048;
  const Tensor gate_up = random_matrix(dtype, {kTokens, 2 * f}), dy = random_matrix(dtype, {kTokens, f});
  Tensor y(dtype, dy.shape()), dgate_up(dtype, gate_up.shape());
  rows.time(sized("swiglu_forward", dtype, kTokens, f), kTokens * f, "Gelem/s", swiglu_forward_variants(),
            {.y = y, .gate_up = unscaled(gate_up), .stream = rows.stream});
  rows.time(sized("swiglu_gradient", dtype, kTokens, f), kTokens * f, "Gelem/s", swiglu_gradient_variants(),
            {.dgate_up = dgate_up, .y = y, .dy = dy, .gate_up = unscaled(gate_up), .stream = rows.stream});
}

void casts(RowsBeside& rows, DType dtype) {
  const Tensor x = random_matrix(dtype, {kTokens, kHidden});
  Tensor codes(DType::e4m3, x.shape()), turned(DType::e4m3, {kHidden, kTokens}), back(dtype, x.shape());
  Tensor tiles(DType::f32, tile_scales_shape(kTokens, kHidden, kRowTile128)),
      tall(DType::f32, tile_scales_shape(kTokens, kHidden, kColumnTile128));
  const double elements = kTokens * kHidden;
  const ScaledView wide{codes, tiles, kRowTile128};
  rows.time(sized("quantize 1x128", dtype, kTokens, kHidden), elements, "Gelem/s", quantize_variants(),
            {.x = x, .row_tiles = wide, .stream = rows.stream});
  rows.time(sized("quantize 1x128 and 128x1 transposed", dtype, kTokens, kHidden), elements, "Gelem/s",
            quantize_variants(),
            {.x = x,
             .row_tiles = wide,
             .column_tiles = {turned.view().transposed(), tall, kColumnTile128},
             .stream = rows.stream});
  rows.time(sized("dequantize 1x128", dtype, kTokens, kHidden), elements, "Gelem/s", dequantize_variants(),
            {.y = back, .x = {codes, tiles, kRowTile128}, .stream = rows.stream});
}

void products(RowsBeside& rows, DType dtype) {
  constexpr std::int64_t n = kHidden, k = kHidden;
  const Tensor x = random_matrix(dtype, {kTokens, k}), w = random_matrix(dtype, {n, k});
  QuantisedMatrix codes({n, k}, kBlock128, ScaleKind::power_of_two);
  codes.from(w, rows.stream);
  Tensor c(dtype, {kTokens, n});
  Arena scratch(quantized_gemm_scratch_bytes(kTokens, n, k, 0, rows.stream.workers().count(), false), Device{});
  const double operations = 2.0 * kTokens * n * k;
  const std::string shape = fmt::format(" {} {}x{}x{}", name(dtype), kTokens, n, k);
  rows.time("gemm" + shape, operations, "GFLOP/s", gemm_variants(),
            {.c = c, .a = unscaled(x), .b = unscaled(w), .scratch = scratch, .stream = rows.stream});
  rows.time("quantized_gemm" + shape, operations, "GFLOP/s", quantized_gemm_variants(),
            {.c = c, .x = x, .scale_kind = codes.kind, .b = codes.view(), .scratch = scratch, .stream = rows.stream});
}

void updates(RowsBeside& rows, DType moments) {
  constexpr std::int64_t count = 1 << 20;
  Tensor parameter = random_matrix(DType::f32, {count}), first(moments, {count}), second(moments, {count}),
         sum(DType::f64, {1}), out(moments, {count});
  const Tensor gradient = random_matrix(DType::f32, {count}), x = random_matrix(moments, {count});
  const std::string shape = fmt::format(" {} [{}]", name(moments), count);
  rows.time("adamw_step, moments" + shape, count, "Gelem/s", adamw_step_variants(),
            {.parameter = parameter,
             .first_moment = first,
             .second_moment = second,
             .gradient = gradient,
             .gradient_scale = 1,
             .learning_rate = 1e-6,
             .beta1 = 0.9,
             .beta2 = 0.95,
             .eps = 1e-8,
             .weight_decay = 0.1,
             .step = 1,
             .stream = rows.stream});
  rows.time("reduce, sum of squares" + shape, count, "Gelem/s", reduce_variants(),
            {.result = sum, .x = x, .kind = ReduceKind::sum_of_squares, .stream = rows.stream});
  rows.time("axpby" + shape, count, "Gelem/s", axpby_variants(),
            {.out = out, .a = 0.5, .x = x, .b = 0.25, .y = out, .stream = rows.stream});
}

}  // namespace

void bench_rows(Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  RowsBeside rows(workers, effort, report);
  for (const DType dtype : kFormats) {
    for (const auto op :
         {attention, cross_entropies, embeddings, experts, norms, rotations, activations, casts, products, updates}) {
      op(rows, dtype);
    }
  }
}

}  // namespace shoestring
