// Inside of gemm, not for other code: packing to f32 and writing c, shared by the machines that multiply f32.
#pragma once

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail {

/// Rows [begin, begin + rows) of `a` as [block of `width` rows][k][width] f32, times the scale where it is folded; rows
/// past the end are zeros. `rows` is a multiple of `width`.
void pack_f32(const Operand& a, std::int64_t begin, std::int64_t rows, std::int64_t width, float* to);

/// Panels of 32 columns from `first_column` on.
void pack_panels_f32(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);

/// Writes rows of the finished strip [rows][32] to c: factor, bias, accumulation, format.
void write_strip(const PanelProduct& work);

}  // namespace shoestring::gemm_detail
