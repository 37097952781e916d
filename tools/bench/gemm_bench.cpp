#include "tools/bench/gemm_bench.h"

#include <fmt/core.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantize.h"
#include "kernels/quantized_gemm.h"
#include "tools/bench/onednn_rival.h"
#include "tools/bench/timed_products.h"

namespace shoestring {
namespace {

constexpr ProductSize kCube{2048, 2048, 2048};
/// 4096 tokens through the linears of recipes/tiny_moe.recipe: the dense feed-forward in and out, and the shared
/// expert.
constexpr std::array kDemo{ProductSize{4096, 1536, 256}, ProductSize{4096, 256, 768}, ProductSize{4096, 256, 256}};
/// Each token in two experts: gate and up, down.
constexpr std::array kGroupedDemo{ProductSize{8192, 256, 256}, ProductSize{8192, 256, 128}};

struct Bench {
  Workers& workers;
  const BenchEffort& effort;
  const BenchReport& report;
};

/// dW += dY^T X over `size.k` tokens.
class PlainWeightGradient : public TimedProduct {
 public:
  PlainWeightGradient(ProductSize size, Workers& workers)
      : TimedProduct(size, DType::f32, workers),
        a_(random_matrix(DType::f32, {size.k, size.m})),
        b_(random_matrix(DType::f32, {size.k, size.n})) {}
  void run() override {
    gemm({.c = c_,
          .a = unscaled(a_.view().transposed()),
          .b = unscaled(b_.view().transposed()),
          .accumulate = true,
          .scratch = scratch_,
          .stream = stream_});
  }

 private:
  Tensor a_;
  Tensor b_;
};

/// The same, both quantised along tokens ahead of the timing.
class Fp8WeightGradient : public TimedProduct {
 public:
  Fp8WeightGradient(ProductSize size, ScaleKind kind, Workers& workers)
      : TimedProduct(size, DType::f32, workers),
        two_(kind != ScaleKind::f32),
        a_({size.k, size.m}, kColumnTile128, kind),
        b_({size.k, size.n}, kColumnTile128, kind) {
    a_.from(random_matrix(DType::bf16, {size.k, size.m}), stream_);
    b_.from(random_matrix(DType::bf16, {size.k, size.n}), stream_);
  }
  void run() override {
    gemm({.c = c_,
          .a = a_.view().transposed(),
          .b = b_.view().transposed(),
          .accumulate = true,
          .power_of_two_scales = two_,
          .scratch = scratch_,
          .stream = stream_});
  }

 private:
  bool two_;
  QuantisedMatrix a_;
  QuantisedMatrix b_;
};

void over_fma_peak(const Bench& bench, const std::string& name, double goal, ProductSize size, TimedProduct& product) {
  constexpr const char* kOver = "FMA peak";
  const std::string what = name + " " + size.text();
  if (!cpu_features().avx2) return bench.report(not_here(what, kOver, "neither AVX2 nor AVX-512"));
  bench.report(bench_over_peak(
      what, kOver, goal, size.flops(), bench.workers, fma_peak, [&] { product.run(); }, bench.effort));
}

/// Goals of a low-precision product: over the tile unit, and, where there is none, over the product in FP32.
struct Goals {
  double amx;
  double f32;
};

/// `f32` is the same product in FP32: what low precision costs or saves where both run on one unit.
void over_amx_or_f32(const Bench& bench, const std::string& name, Goals goals, ProductSize size, TimedProduct& product,
                     TimedProduct& f32) {
  constexpr const char* kOver = "AMX calibration";
  const std::string what = name + " " + size.text();
  const auto run = [&] { product.run(); };
  if (cpu_features().amx_bf16) {
    bench.report(bench_over_peak(what, kOver, goals.amx, size.flops(), bench.workers, amx_peak, run, bench.effort));
    return;
  }
  bench.report(not_here(what, kOver, "no AMX"));
  bench.report(bench_over_rival(
      what, "the FP32 product", goals.f32, size.flops() * 1e-12, "TFLOP/s", bench.workers, run, [&] { f32.run(); },
      bench.effort));
}

/// The faster of oneDNN's two ways to hold b.
void over_onednn(const Bench& bench, const std::string& name, DType dtype, double goal, ProductSize size,
                 TimedProduct& product) {
  PlainProduct same(size, dtype, bench.workers);
  double best = 0;
  std::unique_ptr<OnednnMatmul> rival;
  for (const bool packed : {false, true}) {
    auto candidate = same.rival(packed);
    if (candidate == nullptr) continue;
    for (int warm = 0; warm < 3; ++warm) candidate->run();
    const double begin = now_seconds();
    for (int i = 0; i < 5; ++i) candidate->run();
    const double seconds = now_seconds() - begin;
    if (rival != nullptr && seconds >= best) continue;
    best = seconds;
    rival = std::move(candidate);
  }
  if (rival == nullptr) return;  // built without oneDNN
  bench.report(bench_over_rival(
      name + " " + size.text(), fmt::format("oneDNN {}", shoestring::name(dtype)), goal, size.flops() * 1e-12,
      "TFLOP/s", bench.workers, [&] { product.run(); }, [&] { rival->run(); }, bench.effort));
}

void dense_rows(const Bench& bench, ProductSize size) {
  const bool tiles = cpu_features().amx_bf16;
  const double f32_goal = !cpu_features().avx512 && size.m == kCube.m ? 0.80 : 0.70;
  PlainProduct f32(size, DType::f32, bench.workers);
  over_fma_peak(bench, "gemm f32", f32_goal, size, f32);
  over_onednn(bench, "gemm f32", DType::f32, 0, size, f32);
  PlainProduct bf16(size, DType::bf16, bench.workers);
  over_amx_or_f32(bench, "gemm bf16", {.amx = 0.35, .f32 = 0}, size, bf16, f32);
  Fp8Product fp8(size, ScaleKind::f32, bench.workers);
  over_amx_or_f32(bench, "gemm fp8 f32 scales", {.amx = 0.28, .f32 = 0.60}, size, fp8, f32);
  if (tiles) {  // oneDNN multiplies BF16 well where there are tiles
    over_onednn(bench, "gemm bf16", DType::bf16, 1.2, size, bf16);
    over_onednn(bench, "gemm fp8 f32 scales", DType::bf16, 1.0, size, fp8);
  }
  Fp8Product two(size, ScaleKind::power_of_two, bench.workers);
  over_amx_or_f32(bench, "gemm fp8 power-of-two scales", {.amx = 0.40, .f32 = 0.60}, size, two, f32);
  const ProductSize gradient{size.n, size.k, size.m};
  PlainWeightGradient plain(gradient, bench.workers);
  over_fma_peak(bench, "gemm f32 weight gradient", 0, gradient, plain);
  Fp8WeightGradient weight(gradient, ScaleKind::f32, bench.workers);
  over_amx_or_f32(bench, "gemm fp8 weight gradient", {.amx = 0, .f32 = 0}, gradient, weight, plain);
}

/// 16 experts with empty, single and uneven groups against one product of the same size.
void grouped_row(const Bench& bench, ProductSize size) {
  constexpr std::int64_t kExperts = 16;
  std::vector<std::int64_t> offsets{0,    0,    1,    400,  700,  1211, 1211, 1500, 1837,
                                    2100, 2300, 2815, 2900, 3333, 3500, 3996, 4096};
  for (std::int64_t& offset : offsets) offset = offset > 1 ? offset * size.m / 4096 : offset;
  Stream stream(bench.workers);
  Fp8Product dense(size, ScaleKind::f32, bench.workers);
  const Tensor x = random_matrix(DType::bf16, {size.m, size.k});
  QuantisedMatrix b({kExperts * size.n, size.k}, kBlock128, ScaleKind::f32);
  b.from(random_matrix(DType::bf16, {kExperts * size.n, size.k}), stream);
  PackedMatrix packed;
  pack_experts(b.view(), kExperts, false, false, packed, stream);
  Tensor c(DType::bf16, {size.m, size.n});
  Arena scratch(quantized_gemm_scratch_bytes(size.m, size.n, size.k, kExperts, bench.workers.count(), true), Device{});
  const auto grouped = [&] {
    quantized_gemm(
        {.c = c, .x = x, .b = b.view(), .offsets = offsets, .packed_b = &packed, .scratch = scratch, .stream = stream});
  };
  bench.report(bench_over_rival(
      fmt::format("grouped gemm fp8, {} experts, {}", kExperts, size.text()), "the dense one", 0.8,
      size.flops() * 1e-12, "TFLOP/s", bench.workers, grouped, [&] { dense.run(); }, bench.effort));
}

void threads_rows(const Bench& bench) {
  if (bench.workers.count() < 2) return;
  Workers one(1);
  Workers two(2);
  Fp8Product alone(kCube, ScaleKind::f32, one);
  Fp8Product shared(kCube, ScaleKind::f32, two);
  bench.report(bench_over_rival(
      "gemm fp8 f32 scales " + kCube.text() + ", 2 threads", "1 thread", 1.8, kCube.flops() * 1e-12, "TFLOP/s",
      bench.workers, [&] { shared.run(); }, [&] { alone.run(); }, bench.effort));
}

}  // namespace

void bench_gemm(Workers& workers, const BenchEffort& effort, const BenchReport& report) {
  const Bench bench{workers, effort, report};
  dense_rows(bench, kCube);
  for (const ProductSize size : kDemo) dense_rows(bench, size);
  for (const ProductSize size : kGroupedDemo) grouped_row(bench, size);
  threads_rows(bench);
}

}  // namespace shoestring
