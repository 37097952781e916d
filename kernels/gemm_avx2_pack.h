// Inside of gemm, not for other code: operands as the AVX2 machine reads them, for gemm_avx2.cpp.
#pragma once

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::avx2 {

inline constexpr std::int64_t kRows = 6;
inline constexpr std::int64_t kHalf = 16;  ///< columns that are multiplied together

/// Two columns of half a panel that stand eight apart, in one lane: a shift and a mask widen eight of them.
struct ColumnPair {
  BFloat16 low;
  BFloat16 high;
};
static_assert(sizeof(ColumnPair) == sizeof(float));

/// Machine::pack_rows, pack_panels and quantize_rows.
void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to);
void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);
void quantize_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows);
/// pack_panels of bf16 into [panel][k][2] halves of eight ColumnPairs.
void pack_halves(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);

}  // namespace shoestring::gemm_detail::avx2
