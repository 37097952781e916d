#include "core/model/packed_rows.h"

#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::int64_t tiles_of(std::int64_t columns) { return tile_scales_shape(1, columns, kRowTile128)[1]; }

/// Columns [begin, begin + columns) of the bytes as `dtype`, whose elements are bytes.
template <class View>
View part_of(const View& packed, std::int64_t begin, std::int64_t columns, DType dtype) {
  View part = packed.slice(1, begin, columns);
  part.dtype = dtype;
  return part;
}

void check_packed(ConstTensorView packed, ConstTensorView x) {
  check(packed.dtype == DType::u8 && packed.shape == Shape{x.shape[0], packed_row_bytes(x.shape[1])},
        "rows {} packed in {}", x, packed);
}

}  // namespace

std::int64_t packed_row_bytes(std::int64_t columns) { return columns + tiles_of(columns); }

void pack_rows(TensorView packed, ConstTensorView x, QuantizeCounts* counts, Stream& stream) {
  check_packed(packed, x);
  const std::int64_t columns = x.shape[1];
  quantize({.x = x,
            .row_tiles = {.values = part_of(packed, 0, columns, DType::e4m3),
                          .scales = part_of(packed, columns, tiles_of(columns), DType::e8m0),
                          .granularity = kRowTile128},
            .scale_kind = ScaleKind::e8m0,
            .counts = counts,
            .stream = stream});
}

void unpack_rows(TensorView x, ConstTensorView packed, Stream& stream) {
  check_packed(packed, x);
  const std::int64_t columns = x.shape[1];
  dequantize({.y = x,
              .x = {.values = part_of(packed, 0, columns, DType::e4m3),
                    .scales = part_of(packed, columns, tiles_of(columns), DType::e8m0),
                    .granularity = kRowTile128},
              .stream = stream});
}

}  // namespace shoestring
