// Times the CUDA rows of a model's other ops at the sizes of real models. Bytes are those that must move; where an op
// is bound by something else, its file names that floor.
#include <cmath>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/variant.h"
#include "kernels/cross_entropy.h"
#include "kernels/fill.h"
#include "kernels/latent_key.h"
#include "kernels/permute.h"
#include "kernels/reduce.h"
#include "kernels/router.h"
#include "kernels/swiglu.h"
#include "tools/bench/cuda_clock.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

/// FLOP of a multiprocessor of sm_90 in a clock on its ordinary cores, and on its tensor cores.
constexpr double kSinglePerClock = 256;
constexpr double kBf16PerClock = 4096;

void time_swiglu(Clock& clock, std::int64_t rows, std::int64_t f) {
  const Device device = clock.stream.device();
  Stream& stream = clock.stream;
  const Tensor gate_up = random_on(stream, DType::bf16, {rows, 2 * f}), dy = random_on(stream, DType::bf16, {rows, f});
  const Tensor weights = random_on(stream, DType::f32, {rows});
  Tensor y(DType::bf16, {rows, f}, device), dgate_up(DType::bf16, {rows, 2 * f}, device);
  Tensor dweights(DType::f32, {rows}, device);
  Tensor codes(DType::e4m3, {rows, f}, device), turned(DType::e4m3, {f, rows}, device);
  Tensor tiles(DType::f32, {f / 128, rows}, device), tall(DType::f32, {rows / 128, f}, device);
  Arena scratch(0, device);
  const auto elements = static_cast<double>(rows * f);
  const std::string shape = fmt::format(" bf16 [{}, {}]", rows, f);
  clock.time("swiglu forward" + shape, elements * 6, 0, 0,
             [&] { swiglu_forward({.y = y, .gate_up = unscaled(gate_up), .row_weight = weights, .stream = stream}); });
  clock.time("swiglu gradient" + shape, elements * 12, 0, 0, [&] {
    swiglu_gradient({.dgate_up = dgate_up,
                     .drow_weight = dweights,
                     .y = y,
                     .dy = dy,
                     .gate_up = unscaled(gate_up),
                     .row_weight = weights,
                     .stream = stream});
  });
  clock.time("swiglu and quantize 1x128 and 128x1 transposed" + shape, elements * 6, 0, 0, [&] {
    swiglu_quantize({.row_tiles = {codes, tiles.view().transposed(), kRowTile128},
                     .column_tiles = {turned.view().transposed(), tall, kColumnTile128},
                     .gate_up = unscaled(gate_up),
                     .row_weight = weights,
                     .scratch = scratch,
                     .stream = stream});
  });
}

void time_cross_entropy(Clock& clock, std::int64_t rows, std::int64_t vocabulary) {
  const Device device = clock.stream.device();
  const Tensor logits = random_on(clock.stream, DType::f32, {rows, vocabulary});
  Tensor dlogits(DType::bf16, {rows, vocabulary}, device), loss(DType::f32, {rows}, device);
  const Tensor targets(DType::i32, {rows}, device);
  const auto elements = static_cast<double>(rows * vocabulary);
  const std::string shape = fmt::format(" f32 [{}, {}]", rows, vocabulary);
  clock.time("cross_entropy" + shape, elements * 4, 0, 0, [&] {
    cross_entropy({loss, {}, {}, {}, {}, logits, targets, 1.0, clock.stream});
  });
  clock.time("cross_entropy and gradient in bf16" + shape, elements * 10, 0, 0, [&] {
    cross_entropy({loss, {}, {}, {}, dlogits, logits, targets, 1.0, clock.stream});
  });
}

void time_experts(Clock& clock, std::int64_t tokens, std::int64_t experts, std::int64_t k) {
  const Device device = clock.stream.device();
  Stream& stream = clock.stream;
  const Tensor logits = random_on(stream, DType::f32, {tokens, experts}),
               dweights = random_on(stream, DType::f32, {tokens, k});
  Tensor scores(DType::f32, {tokens, experts}, device), weights(DType::f32, {tokens, k}, device);
  Tensor dlogits(DType::f32, {tokens, experts}, device), indices(DType::i32, {tokens, k}, device);
  PermutationStorage plan(tokens, k, experts, device);
  const auto elements = static_cast<double>(tokens * experts);
  const std::string shape = fmt::format(" [{}, {}] k {}", tokens, experts, k);
  clock.time("router forward, 4 of 8 groups" + shape, elements * 8, 0, 0, [&] {
    router_forward({.indices = indices,
                    .weights = weights,
                    .scores = scores,
                    .logits = logits,
                    .kind = RouterKind::sigmoid,
                    .groups = 8,
                    .topk_groups = 4,
                    .normalize = true,
                    .stream = stream});
  });
  clock.time("router gradient" + shape, elements * 8, 0, 0, [&] {
    router_gradient({.dlogits = dlogits,
                     .dweights = dweights,
                     .indices = indices,
                     .scores = scores,
                     .kind = RouterKind::sigmoid,
                     .normalize = true,
                     .stream = stream});
  });
  clock.time("plan_permutation" + shape, static_cast<double>(tokens * k * 12), 0, 0,
             [&] { plan_permutation(plan.view(), indices, stream); });
}

/// By the row of that name, in one document.
void time_attention(Clock& clock, std::string_view row, std::int64_t tokens, std::int64_t heads, std::int64_t qk,
                    std::int64_t v) {
  const Device device = clock.stream.device();
  Stream& stream = clock.stream;
  const Tensor q = random_on(stream, DType::bf16, {tokens, heads, qk}),
               k = random_on(stream, DType::bf16, {tokens, heads, qk});
  const Tensor values = random_on(stream, DType::bf16, {tokens, heads, v}),
               d_o = random_on(stream, DType::bf16, {tokens, heads, v});
  Tensor o(DType::bf16, {tokens, heads, v}, device), lse(DType::f32, {heads, tokens}, device);
  Tensor dq(DType::bf16, q.shape(), device), dk(DType::bf16, q.shape(), device),
      dv(DType::bf16, values.shape(), device);
  const Tensor starts(DType::i32, {tokens}, device);  // one document
  Arena scratch(attention_scratch_bytes({tokens, 0, heads, heads, qk, v}, 1), device);
  const double scale = 1 / std::sqrt(static_cast<double>(qk));
  const double pairs = 0.5 * static_cast<double>(tokens) * static_cast<double>(tokens) * static_cast<double>(heads);
  const auto bytes = static_cast<double>(q.bytes() * 2 + o.bytes() * 2);
  const std::string shape = fmt::format(" {} bf16 [{}, {}, {} and {}]", row, tokens, heads, qk, v);
  const bool own = row == "cuda";  // which makes two of the products once more
  const double per_clock = own ? kSinglePerClock : kBf16PerClock;
  const std::vector<std::int32_t> document{0, static_cast<std::int32_t>(tokens)};
  pin_variant("attention_forward", row);
  pin_variant("attention_backward", row);
  clock.time("attention forward" + shape, bytes, pairs * 2 * static_cast<double>(qk + v), per_clock, [&] {
    attention_forward({o, lse, q, k, values, starts, scale, scratch, stream, document});
  });
  const auto dims = static_cast<double>(own ? 5 * qk + 4 * v : 3 * qk + 2 * v);
  clock.time("attention backward" + shape, bytes * 2, pairs * 2 * dims, per_clock, [&] {
    attention_backward({dq, dk, dv, d_o, q, k, values, o, lse, starts, scale, scratch, stream, document});
  });
  pin_variant("attention_forward", {});
  pin_variant("attention_backward", {});
}

void time_latent_key(Clock& clock, std::int64_t tokens, std::int64_t heads) {
  const Device device = clock.stream.device();
  const Tensor own = random_on(clock.stream, DType::bf16, {tokens, heads, 128});
  const Tensor shared = random_on(clock.stream, DType::bf16, {tokens, 64});
  Tensor k(DType::bf16, {tokens, heads, 192}, device);
  clock.time(fmt::format("latent_key bf16 [{}, {}]", tokens, heads), static_cast<double>(own.bytes() + k.bytes()), 0, 0,
             [&] {
               latent_key({k, own, shared, clock.stream});
             });
}

void time_elements(Clock& clock, std::int64_t count) {
  const Device device = clock.stream.device();
  Stream& stream = clock.stream;
  Tensor parameter = random_on(stream, DType::f32, {count});
  const Tensor gradient = random_on(stream, DType::f32, {count});
  Tensor first(DType::f32, {count}, device), second(DType::f32, {count}, device);
  Tensor result(DType::f64, {1}, device), partials(DType::f64, {reduce::kMaxBlocks}, device);
  const std::string shape = fmt::format(" f32 [{}]", count);
  const auto elements = static_cast<double>(count);
  clock.time("adamw" + shape, elements * 28, 0, 0, [&] {
    adamw_step({.parameter = parameter,
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
                .stream = stream});
  });
  clock.time("sum of squares" + shape, elements * 4, 0, 0,
             [&] { reduce_into(result, partials, ReduceKind::sum_of_squares, gradient, stream); });
  clock.time("fill" + shape, elements * 4, 0, 0, [&] { fill(first, 0.0, stream); });
}

}  // namespace

void time_blocks(Clock& clock) {
  clock.part("swiglu", [&] { time_swiglu(clock, 32768, 2048); });
  clock.part("cross_entropy", [&] { time_cross_entropy(clock, 1024, 129280); });
  clock.part("experts", [&] { time_experts(clock, 8192, 256, 8); });
  clock.part("attention 128 and 128", [&] { time_attention(clock, "cuda", 4096, 16, 128, 128); });
  clock.part("attention 192 and 128", [&] { time_attention(clock, "cuda", 4096, 16, 192, 128); });
  for (const Variant<AttentionArgs>& row : attention_forward_variants()) {
    if (row.name != "cudnn") continue;
    clock.part("attention 128 and 128 by cuDNN", [&] { time_attention(clock, row.name, 8192, 32, 128, 128); });
    clock.part("attention 192 and 128 by cuDNN", [&] { time_attention(clock, row.name, 8192, 128, 192, 128); });
  }
  clock.part("latent_key", [&] { time_latent_key(clock, 8192, 128); });
  clock.part("elements", [&] { time_elements(clock, std::int64_t{1} << 26); });
}

}  // namespace shoestring::cuda_compare
