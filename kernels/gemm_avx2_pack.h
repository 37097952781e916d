// Inside of gemm, not for other code: operands as the AVX2 machine reads them, for gemm_avx2.cpp.
#pragma once

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::avx2 {

inline constexpr std::int64_t kRows = 6;

/// Machine::pack_rows, pack_panels and quantize_rows.
void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to);
void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);
void quantize_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows);

}  // namespace shoestring::gemm_detail::avx2
