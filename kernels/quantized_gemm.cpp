#include "kernels/quantized_gemm.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <new>

#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/gemm_problem.h"
#include "kernels/grouped_gemm.h"
#include "kernels/quantize_variants.h"
#include "kernels/quantized_gemm_codes.h"

namespace shoestring {
namespace {

using gemm_detail::Machine;
using gemm_detail::Problem;
using gemm_detail::RowCast;

bool power_of_two(const QuantizedGemmArgs& args) { return args.scale_kind != ScaleKind::f32; }

GemmArgs dense(const QuantizedGemmArgs& args, const ConstScaledView& a) {
  return {.c = args.c,
          .a = a,
          .b = args.b_transposed ? args.b.transposed() : args.b,
          .accumulate = args.accumulate,
          .power_of_two_scales = power_of_two(args),
          .packed_b = args.packed_b,
          .bias = args.bias,
          .scratch = args.scratch,
          .stream = args.stream};
}

GroupedGemmArgs grouped(const QuantizedGemmArgs& args, const ConstScaledView& a) {
  return {.c = args.c,
          .a = a,
          .b = args.b,
          .b_transposed = args.b_transposed,
          .offsets = args.offsets,
          .device_offsets = args.device_offsets,
          .accumulate = args.accumulate,
          .power_of_two_scales = power_of_two(args),
          .packed_b = args.packed_b,
          .scratch = args.scratch,
          .stream = args.stream};
}

QuantizeArgs casts(const QuantizedGemmArgs& args, const ScaledView& row_tiles, const ScaledView& column_tiles) {
  return {.x = args.x,
          .row_tiles = row_tiles,
          .column_tiles = column_tiles,
          .scale_kind = args.scale_kind,
          .segments = args.offsets,
          .counts = args.counts,
          .stream = args.stream};
}

ScaledView row_codes(const QuantizedGemmArgs& args) {
  return gemm_detail::take_row_codes(args.scratch, args.x.shape, args.values, args.row_tile, args.scale_kind,
                                     args.stream.device().kind);
}

/// The two ops one after the other, the row codes in scratch.
void quantize_then_multiply(const QuantizedGemmArgs& args, const ScaledView& column_tiles) {
  const Arena::Scope scope(args.scratch);
  const ScaledView codes = row_codes(args);
  quantize(casts(args, codes, column_tiles));
  if (args.offsets.empty()) {
    gemm(dense(args, codes));
  } else {
    grouped_gemm(grouped(args, codes));
  }
}

/// Why no row of the product's table takes these arguments; empty when one does.
template <class Args>
std::string nothing_takes(std::span<const Variant<Args>> rows, const Args& args) {
  std::string reasons;
  for (const Variant<Args>& row : rows) {
    const std::string reason = row.refuses(args);
    if (reason.empty()) return {};
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "of the product: " : "; ", row.name, reason);
  }
  return reasons;
}

/// On a CPU the product takes whatever quantize writes. A device is asked before anything is enqueued on it.
std::string two_ops_refuses(const QuantizedGemmArgs& args) {
  if (args.stream.device().kind == DeviceKind::cpu || args.c.elements() == 0) return {};
  const Arena::Scope scope(args.scratch);
  const ScaledView codes = row_codes(args);
  return args.offsets.empty() ? nothing_takes(gemm_variants(), dense(args, codes))
                              : nothing_takes(grouped_gemm_variants(), grouped(args, codes));
}

void run_in_two(const QuantizedGemmArgs& args) { quantize_then_multiply(args, args.column_tiles); }

std::int64_t problems_of(const QuantizedGemmArgs& args) {
  return args.offsets.empty() ? 1 : static_cast<std::int64_t>(args.offsets.size()) - 1;
}

Problem problem_of(const QuantizedGemmArgs& args, std::int64_t index, const RowCast& cast) {
  const ConstScaledView a = unscaled(args.x);
  Problem problem =
      args.offsets.empty() ? gemm_detail::problem_of(dense(args, a)) : gemm_detail::problem_of(grouped(args, a), index);
  problem.cast = &cast;
  return problem;
}

#if defined(__x86_64__)  // whose machines alone round rows while they pack them
/// Why `machine` cannot round the rows that it multiplies.
template <const Machine& machine>
std::string fused_refuses(const QuantizedGemmArgs& args) {
  if (std::string lacking = lacks(machine); !lacking.empty()) return lacking;
  if (&gemm_detail::machine_for(args.values) != &machine) return "gemm runs on another machine";
  if (args.x.strides[1] != 1) return "the columns of x are not contiguous";
  if (args.row_tile != kRowTile128) return "rounds tiles of 1x128";
  if (args.x.shape[1] % 32 != 0) return "rounds 32 of k at a time";
  const std::int64_t b_tile = args.b_transposed ? args.b.granularity.rows : args.b.granularity.columns;
  if (b_tile != 0 && b_tile != kRowTile128.columns) return "the scales of b are finer than those of x";
  if (args.accumulate && power_of_two(args)) return "a sum cannot be taken back when a scale proves unfoldable";
  const RowCast cast{.values = args.values, .kind = args.scale_kind};
  return refuses(machine, problem_of(args, 0, cast));
}

template <const Machine& machine>
void fused_run(const QuantizedGemmArgs& args) {
  if (!args.column_tiles.values.empty()) quantize(casts(args, {}, args.column_tiles));
  std::atomic<bool> unfoldable{false};
  QuantizeCounts counts;
  const RowCast cast{.values = args.values,
                     .kind = args.scale_kind,
                     .counts = args.counts == nullptr ? nullptr : &counts,
                     .unfoldable = &unfoldable};
  {
    const Arena::Scope scope(args.scratch);
    const std::int64_t count = problems_of(args);
    auto* problems = args.scratch.take(DType::u8, {count * static_cast<std::int64_t>(sizeof(Problem))}).as<Problem>();
    for (std::int64_t i = 0; i < count; ++i) new (problems + i) Problem(problem_of(args, i, cast));
    gemm_detail::run(machine, {problems, static_cast<std::size_t>(count)}, args.scratch, args.stream);
  }
  if (unfoldable) {  // rare; whether scales are folded is decided for a whole operand, before its first product
    quantize_then_multiply(args, {});
  } else {
    quantization::add(args.counts, counts);
  }
}

#endif

constexpr std::array kVariants = std::to_array<Variant<QuantizedGemmArgs>>({
#if defined(__x86_64__)
  {"amx", fused_refuses<gemm_detail::amx::machine>, fused_run<gemm_detail::amx::machine>},
      {"avx2", fused_refuses<gemm_detail::avx2::machine>, fused_run<gemm_detail::avx2::machine>},
#endif
      {"two_ops", two_ops_refuses, run_in_two},
});

}  // namespace

namespace gemm_detail {

ScaledView take_row_codes(Arena& scratch, const Shape& shape, DType values, Granularity row_tile, ScaleKind kind,
                          DeviceKind reader) {
  const DType scale = kind == ScaleKind::e8m0 ? DType::e8m0 : DType::f32;
  const Shape tiles = scales_shape(shape[0], shape[1], row_tile);
  const bool columns = reader == DeviceKind::cuda && row_tile == kRowTile128;
  ScaledView codes{scratch.take(values, shape), {}, row_tile};
  codes.scales = columns ? scratch.take(scale, {tiles[1], tiles[0]}).transposed() : scratch.take(scale, tiles);
  return codes;
}

}  // namespace gemm_detail

void quantized_gemm(const QuantizedGemmArgs& args) {
  constexpr std::string_view kOp = "quantized_gemm";
  const bool plain = args.x.dtype == DType::f32 || args.x.dtype == DType::bf16;
  check(args.x.shape.rank() == 2 && plain, "{}: x must be an f32 or bf16 matrix, not {}", kOp, args.x);
  check(args.values == DType::e4m3 || args.values == DType::e5m2, "{}: x cannot be rounded to {}", kOp,
        name(args.values));
  check(args.row_tile == kRowTile128 || args.row_tile == kRowTile32, "{}: row tiles of {}x{}", kOp, args.row_tile.rows,
        args.row_tile.columns);
  check(args.bias.empty() || args.offsets.empty(), "{}: experts have no bias", kOp);
  check(args.offsets.empty() || args.offsets.size() >= 2, "{}: offsets name no expert", kOp);
  const RowCast cast{.values = args.values, .kind = args.scale_kind};
  for (std::int64_t i = 0; i < problems_of(args); ++i) gemm_detail::check_problem(problem_of(args, i, cast), kOp);
  if (args.x.shape[0] == 0) return;
  if (args.stream.dry()) return quantize_then_multiply(args, args.column_tiles);  // the row that takes most
  choose(kOp, kVariants, args).run(args);
}

std::span<const Variant<QuantizedGemmArgs>> quantized_gemm_variants() { return kVariants; }

std::int64_t quantized_gemm_scratch_bytes(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t experts,
                                          int workers, bool prepacked_b) {
  const std::int64_t codes = Arena::footprint(m * k) + Arena::footprint(m * gemm_detail::divide_up(k, 32) * 4);
  return codes + (experts == 0 ? gemm_scratch_bytes(m, n, k, workers, prepacked_b)
                               : grouped_gemm_scratch_bytes(m, n, k, experts, workers, prepacked_b));
}

}  // namespace shoestring
