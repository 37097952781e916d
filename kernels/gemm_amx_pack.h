// Inside of gemm, not for other code: operands as tiles of BF16.
//
// A left tile is 16 rows of 32 k; a right tile is 16 pairs of k by 16 columns. Both come from memory in either order:
// rows of k (k contiguous) are left rows at once, pairs of rows (the other dim contiguous) are right rows at once, and
// a 16 x 16 transposition of pairs leads from one to the other.
#pragma once

#include "kernels/gemm_problem.h"

namespace shoestring::gemm_detail::amx {

/// [block of 32 rows][k / 32][2 tiles of 16 rows], see Machine::pack_rows.
void pack_rows(const Operand& a, std::int64_t begin, std::int64_t rows, void* to);
/// The same from plain numbers, see Machine::quantize_rows.
void quantize_rows(const Operand& a, const RowCast& cast, const RowsOfBlock& rows);
/// [panel][k / 32][2 tiles of 16 columns], see Machine::pack_panels.
void pack_panels(const Operand& b, std::int64_t first_column, std::int64_t panels, void* to);

}  // namespace shoestring::gemm_detail::amx
