// Rows on their way to experts in FP8: E4M3 codes in tiles of 1 x 128 and, behind the codes of each row, the exponents
// of their power-of-two scales, a byte each (DeepSeek-V3, arXiv 2412.19437, section 3.3.3). Products that quantise the
// same tiles with such scales find the same codes again: nothing is rounded twice.
#pragma once

#include <cstdint>

#include "kernels/base/tensor.h"
#include "kernels/quantize.h"

namespace shoestring {

/// Of a row of `columns` values: codes, then scales.
std::int64_t packed_row_bytes(std::int64_t columns);

/// packed u8 [rows, packed_row_bytes(columns)] from x [rows, columns], f32 or bf16. `counts` may be nullptr.
void pack_rows(TensorView packed, ConstTensorView x, QuantizeCounts* counts, Stream& stream);
/// x [rows, columns], f32 or bf16, overwritten.
void unpack_rows(TensorView x, ConstTensorView packed, Stream& stream);

}  // namespace shoestring
