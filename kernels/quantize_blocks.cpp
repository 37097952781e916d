#include "kernels/quantize_blocks.h"

#include <algorithm>
#include <array>

#include "kernels/base/check.h"

namespace shoestring::quantization {
namespace {

constexpr std::size_t kMaxPieces = 32;
constexpr std::int64_t kBlockRows = 256;  // tall tiles of 128 rows divide it; 256 x 2048 bf16 are 1 MiB

// Consecutive rows that are made and quantised together: whole small segments, or a piece of a large one that starts at
// a multiple of the tile height.
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

void quantize_block(const QuantizeArgs& casts, const MakeRows& make, TensorView room, const Block& block) {
  if (block.count == 0) return;
  const TensorView rows = room.slice(0, 0, block.count);
  make(rows, block.begin);
  QuantizeArgs part = casts;
  part.x = rows;
  part.row_tiles = rows_of(casts.row_tiles, block);
  part.column_tiles = rows_of(casts.column_tiles, block);
  part.segments = std::span(block.offsets).first(block.pieces + 1);
  quantize(part);
}

}  // namespace

ConstTensorView unwritten(const Shape& shape, DType dtype, Device device) {
  ConstTensorView view;
  view.shape = shape;
  view.strides = contiguous_strides(shape);
  view.dtype = dtype;
  view.device = device;
  return view;
}

void check_casts(const QuantizeArgs& casts, const char* op) {
  check(casts.row_tiles.values.empty() || casts.row_tiles.granularity.rows == 1, "{}: row tiles of {} rows", op,
        casts.row_tiles.granularity.rows);
  check_arguments(casts);
}

void quantize_in_blocks(const QuantizeArgs& casts, const MakeRows& make, Arena& scratch) {
  const std::int64_t height = casts.column_tiles.values.empty() ? 1 : casts.column_tiles.granularity.rows;
  check(height > 0 && kBlockRows % height == 0, "column tiles of {} rows", height);
  const Arena::Scope scope(scratch);
  const TensorView room = scratch.take(casts.x.dtype, {kBlockRows, casts.x.shape[1]});
  const std::int64_t whole[] = {0, casts.x.shape[0]};
  const std::span<const std::int64_t> segments = casts.segments.empty() ? whole : casts.segments;
  Block block;
  for (std::size_t s = 0; s + 1 < segments.size(); ++s) {
    for (std::int64_t begin = segments[s]; begin < segments[s + 1]; begin += kBlockRows) {
      const std::int64_t piece = std::min(kBlockRows, segments[s + 1] - begin);
      if (!block.takes(piece)) {
        quantize_block(casts, make, room, block);
        block = block.next();
      }
      block.add(piece, height);
    }
  }
  quantize_block(casts, make, room, block);
}

std::int64_t block_scratch_bytes(std::int64_t columns) { return Arena::footprint(kBlockRows * columns * 4); }

}  // namespace shoestring::quantization
