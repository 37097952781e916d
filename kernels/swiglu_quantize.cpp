// SwiGLU into a low-precision format: a block of rows is computed, quantised while it is in cache, and forgotten.
#include <algorithm>
#include <array>

#include "kernels/base/check.h"
#include "kernels/cpu_refusals.h"
#include "kernels/swiglu.h"

namespace shoestring {
namespace {

constexpr std::size_t kMaxPieces = 32;
constexpr std::int64_t kBlockRows = 256;  // tall tiles of 128 rows divide it; 256 x 2048 bf16 are 1 MiB

ConstTensorView rows_of(ConstTensorView view, std::int64_t begin, std::int64_t count) {
  return view.empty() ? view : view.slice(0, begin, count);
}

// Consecutive rows that are computed and quantised together: whole small segments, or a piece of a large one that
// starts at a multiple of the tile height.
struct Block {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t first_tile = 0;  ///< of its tall tiles, among those of all rows
  std::int64_t tiles = 0;
  std::array<std::int64_t, kMaxPieces + 1> offsets{};  ///< of its pieces, from 0
  std::size_t pieces = 0;

  bool takes(std::int64_t rows) const { return count + rows <= kBlockRows && pieces < kMaxPieces; }
  void add(std::int64_t rows, std::int64_t height) {
    count += rows;
    tiles += (rows + height - 1) / height;
    offsets[++pieces] = count;
  }
  Block next() const { return {.begin = begin + count, .first_tile = first_tile + tiles}; }
};

// The block's part of an output.
ScaledView rows_of(const ScaledView& view, const Block& block) {
  if (view.values.empty()) return view;
  ScaledView part = view;
  part.values = view.values.slice(0, block.begin, block.count);
  part.scales = view.granularity.rows == 1 ? view.scales.slice(0, block.begin, block.count)
                                           : view.scales.slice(0, block.first_tile, block.tiles);
  return part;
}

void quantize_block(const SwigluQuantizeArgs& args, TensorView y, const Block& block) {
  if (block.count == 0) return;
  ConstScaledView gate_up = args.gate_up;
  gate_up.values = rows_of(gate_up.values, block.begin, block.count);
  gate_up.scales = rows_of(gate_up.scales, block.begin, block.count);
  const TensorView rows = y.slice(0, 0, block.count);
  swiglu_forward({.y = rows,
                  .gate_up = gate_up,
                  .row_weight = rows_of(args.row_weight, block.begin, block.count),
                  .clamp = args.clamp,
                  .stream = args.stream});
  quantize({.x = rows,
            .row_tiles = rows_of(args.row_tiles, block),
            .column_tiles = rows_of(args.column_tiles, block),
            .scale_kind = args.scale_kind,
            .segments = std::span(block.offsets).first(block.pieces + 1),
            .counts = args.counts,
            .stream = args.stream});
}

void quantize_in_blocks(const SwigluQuantizeArgs& args) {
  const std::int64_t rows = args.gate_up.values.shape[0];
  const std::int64_t f = args.gate_up.values.shape[1] / 2;
  const std::int64_t height = args.column_tiles.values.empty() ? 1 : args.column_tiles.granularity.rows;
  check(height > 0 && kBlockRows % height == 0, "swiglu_quantize: column tiles of {} rows", height);
  const Arena::Scope scope(args.scratch);
  const TensorView y = args.scratch.take(args.format, {kBlockRows, f});
  const std::int64_t whole[] = {0, rows};
  const std::span<const std::int64_t> segments = args.segments.empty() ? whole : args.segments;
  Block block;
  for (std::size_t s = 0; s + 1 < segments.size(); ++s) {
    for (std::int64_t begin = segments[s]; begin < segments[s + 1]; begin += kBlockRows) {
      const std::int64_t piece = std::min(kBlockRows, segments[s + 1] - begin);
      if (!block.takes(piece)) {
        quantize_block(args, y, block);
        block = block.next();
      }
      block.add(piece, height);
    }
  }
  quantize_block(args, y, block);
}

constexpr std::array kVariants = std::to_array<Variant<SwigluQuantizeArgs>>({
#if SHOESTRING_CUDA
  {"cuda", swiglu::cuda::refuses, swiglu::cuda::forward_quantized},
#endif
      {"cpu", needs_cpu<SwigluQuantizeArgs>, quantize_in_blocks},
});

}  // namespace

std::int64_t swiglu_quantize_scratch_bytes(std::int64_t f) { return Arena::footprint(kBlockRows * f * 4); }

void swiglu_quantize(const SwigluQuantizeArgs& args) {
  const std::int64_t rows = args.gate_up.values.shape[0];
  if (rows == 0 || args.gate_up.values.shape[1] < 2) return;
  check(args.row_tiles.values.empty() || args.row_tiles.granularity.rows == 1, "swiglu_quantize: row tiles of {} rows",
        args.row_tiles.granularity.rows);
  check(args.segments.empty() || (args.segments.front() == 0 && args.segments.back() == rows),
        "swiglu_quantize: segments end at {} of {} rows", args.segments.empty() ? rows : args.segments.back(), rows);
  choose("swiglu_quantize", kVariants, args).run(args);
}

std::span<const Variant<SwigluQuantizeArgs>> swiglu_quantize_variants() { return kVariants; }

}  // namespace shoestring
