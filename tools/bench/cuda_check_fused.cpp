// Ops that quantise what they make, on a CUDA device: against their two halves there, bit for bit, outputs poisoned.
#include <new>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/gather_quantize.h"
#include "kernels/rms_norm_quantize.h"
#include "kernels/swiglu.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring::cuda_compare {
namespace {

struct Setting {
  DType made;  ///< the format of what is quantised
  DType payload = DType::e4m3;
  ScaleKind kind = ScaleKind::f32;
  std::vector<std::int64_t> segments{};
};

std::string text_of(const Setting& s) {
  return fmt::format("{} to {}, scales of kind {}", name(s.made), name(s.payload), static_cast<int>(s.kind));
}

/// Both copies of a matrix, where the products of FP8 read them, and what was counted.
class Casts {
 public:
  Casts(Bench& bench, const Setting& s, const Shape& shape) : counts_(Storage::pinned(sizeof(QuantizeCounts))) {
    const DType scale = s.kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
    const Shape tiles = tile_scales_shape(shape[0], shape[1], kRowTile128);
    outputs.push_back(bench.to_device(poisoned(s.payload, shape)));
    outputs.push_back(bench.to_device(poisoned(scale, {tiles[1], tiles[0]})));
    outputs.push_back(bench.to_device(poisoned(s.payload, {shape[1], shape[0]})));
    outputs.push_back(
        bench.to_device(poisoned(scale, tile_scales_shape(shape[0], shape[1], kColumnTile128, s.segments))));
    new (counts_.data()) QuantizeCounts;
  }
  ScaledView row_tiles() { return {outputs[0], outputs[1].view().transposed(), kRowTile128}; }
  ScaledView column_tiles() { return {outputs[2].view().transposed(), outputs[3], kColumnTile128}; }
  QuantizeCounts* counts() { return static_cast<QuantizeCounts*>(counts_.data()); }

  Tensors outputs;  ///< what else the op writes may be added

 private:
  Storage counts_;
};

/// `fused` writes one set of casts; `plain` makes the matrix, which quantise then writes as another.
void check_halves(Bench& bench, const std::string& op, const Setting& s, const Shape& shape,
                  const std::function<void(Casts&)>& fused, const std::function<void(Casts&, TensorView)>& plain) {
  const std::string name_of = fmt::format("{} [{}, {}] {}", op, shape[0], shape[1], text_of(s));
  bench.part(name_of, [&] {
    Casts ours(bench, s, shape), expected(bench, s, shape);
    fused(ours);
    Tensor made(s.made, shape, bench.device());
    plain(expected, made);
    quantize({.x = made,
              .row_tiles = expected.row_tiles(),
              .column_tiles = expected.column_tiles(),
              .scale_kind = s.kind,
              .segments = s.segments,
              .counts = expected.counts(),
              .stream = bench.cuda});
    bench.cuda.synchronize();
    std::string detail;
    for (std::size_t i = 0; i < ours.outputs.size(); ++i) {
      const std::string text = difference(bench.to_host(ours.outputs[i]), bench.to_host(expected.outputs[i]));
      if (!text.empty()) detail += fmt::format("output {}: {}", i, text);
    }
    const QuantizeCounts &a = *ours.counts(), &b = *expected.counts();
    if (a.elements != b.elements || a.saturated != b.saturated || a.underflowed != b.underflowed ||
        a.non_finite != b.non_finite || a.amax != b.amax || a.elements == 0) {
      detail += "counts differ";
    }
    bench.verdict(name_of, detail.empty(), detail);
  });
}

void check_swiglu_quantize(Bench& bench, const Setting& s, bool from_codes) {
  constexpr std::int64_t kRows = 150, kF = 256;
  const Tensor plain = bench.to_device(numbers(s.made, {kRows, 2 * kF}, 56));
  const Tensor weights = bench.to_device(numbers(DType::f32, {kRows}, 57));
  Tensor codes(DType::e4m3, {kRows, 2 * kF}, bench.device()), scales(DType::f32, {kRows, kF / 64}, bench.device());
  quantize({.x = plain, .row_tiles = {codes, scales, kRowTile128}, .stream = bench.cuda});
  const ConstScaledView gate_up = from_codes ? ConstScaledView{codes, scales, kRowTile128} : unscaled(plain);
  Arena scratch(0, bench.device());
  check_halves(
      bench, from_codes ? "swiglu_quantize of e4m3" : "swiglu_quantize", s, {kRows, kF},
      [&](Casts& to) {
        swiglu_quantize({.row_tiles = to.row_tiles(),
                         .column_tiles = to.column_tiles(),
                         .gate_up = gate_up,
                         .row_weight = weights,
                         .clamp = 7.0f,
                         .format = s.made,
                         .scale_kind = s.kind,
                         .segments = s.segments,
                         .counts = to.counts(),
                         .scratch = scratch,
                         .stream = bench.cuda});
      },
      [&](Casts&, TensorView y) {
        swiglu_forward({.y = y, .gate_up = gate_up, .row_weight = weights, .clamp = 7.0f, .stream = bench.cuda});
      });
}

/// `residual`: with a sum, and a statistic that is kept; `skipped` columns stand before each row.
void check_rms_norm_quantize(Bench& bench, const Setting& s, const Shape& shape, bool residual,
                             std::int64_t skipped = 0) {
  const Tensor wide = bench.to_device(numbers(s.made, {shape[0], shape[1] + skipped}, 61));
  const ConstTensorView x = wide.view().slice(1, skipped, shape[1]);
  const Tensor other = bench.to_device(numbers(s.made, shape, 62));
  const Tensor gamma = bench.to_device(numbers(DType::f32, {shape[1]}, 63));
  Arena scratch(rms_norm_quantize_scratch_bytes(shape[0], shape[1], DeviceKind::cuda), bench.device());
  const auto kept = [&](Casts& to) {  // rstd and sum
    if (!residual) return std::pair<TensorView, TensorView>();
    to.outputs.push_back(bench.to_device(poisoned(DType::f32, {shape[0]})));
    to.outputs.push_back(bench.to_device(poisoned(s.made, shape)));
    return std::pair<TensorView, TensorView>(to.outputs[4], to.outputs[5]);
  };
  const ConstTensorView added = residual ? ConstTensorView(other) : ConstTensorView();
  check_halves(
      bench, fmt::format("rms_norm_quantize{}{}", residual ? " of a sum" : "", skipped > 0 ? " of columns" : ""), s,
      shape,
      [&](Casts& to) {
        const auto [rstd, sum] = kept(to);
        rms_norm_quantize({.row_tiles = to.row_tiles(),
                           .column_tiles = to.column_tiles(),
                           .rstd = rstd,
                           .x = x,
                           .gamma = gamma,
                           .residual = added,
                           .sum = sum,
                           .eps = 1e-6f,
                           .scale_kind = s.kind,
                           .counts = to.counts(),
                           .scratch = scratch,
                           .stream = bench.cuda});
      },
      [&](Casts& to, TensorView y) {
        const auto [rstd, sum] = kept(to);
        rms_norm_forward({.y = y,
                          .rstd = rstd,
                          .x = x,
                          .gamma = gamma,
                          .residual = added,
                          .sum = sum,
                          .eps = 1e-6f,
                          .stream = bench.cuda});
      });
}

/// Tokens of hostile numbers to five experts, of which one gets none and some slots go nowhere.
void check_gather_quantize(Bench& bench, Setting s, std::int64_t hidden) {
  constexpr std::int64_t kTokens = 75, kChoices = 3, kExperts = 5;
  Tensor indices = integers({kTokens, kChoices}, kExperts + 1, 7);
  for (std::int64_t slot = 0; slot < kTokens * kChoices; ++slot) {
    std::int32_t& expert = indices.as<std::int32_t>()[slot];
    if (expert == 2) expert = -1;
  }
  const Tensor x = bench.to_device(numbers(s.made, {kTokens, hidden}, 64, true));
  const Tensor chosen = bench.to_device(indices);
  PermutationStorage storage(kTokens, kChoices, kExperts, bench.device());
  const Permutation plan = storage.view();
  plan_permutation(plan, chosen, bench.cuda);
  const Tensor offsets = bench.to_host(plan.offsets);
  s.segments.assign(offsets.as<std::int64_t>(), offsets.as<std::int64_t>() + kExperts + 1);
  s.segments.push_back(s.segments.back() + 9);  // rows past the plan's last: zeros
  Arena scratch(0, bench.device());
  check_halves(
      bench, "gather_quantize", s, {s.segments.back(), hidden},
      [&](Casts& to) {
        gather_quantize({.row_tiles = to.row_tiles(),
                         .column_tiles = to.column_tiles(),
                         .x = x,
                         .plan = plan,
                         .scale_kind = s.kind,
                         .segments = s.segments,
                         .counts = to.counts(),
                         .scratch = scratch,
                         .stream = bench.cuda});
      },
      [&](Casts&, TensorView xp) { gather_rows({.xp = xp, .x = x, .plan = plan, .stream = bench.cuda}); });
}

}  // namespace

void check_fused(Bench& bench) {
  const std::vector<std::int64_t> segments = {0, 3, 3, 130, 150};
  for (const DType made : {DType::f32, DType::bf16}) {
    for (const DType payload : {DType::e4m3, DType::e5m2}) {
      for (const bool codes : {false, true}) {
        check_swiglu_quantize(bench, {.made = made, .payload = payload, .segments = segments}, codes);
      }
      check_rms_norm_quantize(bench, {.made = made, .payload = payload}, {131, 200}, false);
      check_gather_quantize(bench, {.made = made, .payload = payload}, 136);
    }
    check_rms_norm_quantize(bench, {.made = made}, {33, 644}, true);
    check_rms_norm_quantize(bench, {.made = made}, {9, 33}, true, 3);
    check_gather_quantize(bench, {.made = made, .kind = ScaleKind::power_of_two}, 33);
  }
  check_swiglu_quantize(bench, {.made = DType::bf16, .kind = ScaleKind::e8m0, .segments = segments}, false);
  check_rms_norm_quantize(bench, {.made = DType::bf16, .kind = ScaleKind::power_of_two}, {3, 128}, false);
}

}  // namespace shoestring::cuda_compare
