// The rows of one weight as single precision, whatever format a model folder has them in.
//
//   BF16, F16, F32      as they are: exact
//   F8_E4M3             code * scale of its block, rounded once; scales [ceil(rows / block), ceil(columns / block)] in
//                       NAME_scale_inv, in whichever file (DeepSeek-V3, README_WEIGHTS)
//   fused experts       rows of mlp.experts.gate_up_proj [experts, 2 * width, in] and down_proj, where a folder has
//   them
//                       in place of one tensor for each expert
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/training/import_folder.h"

namespace shoestring {

/// Where the rows of a weight lie.
struct RowSource {
  std::string name;  ///< of the tensor that holds them
  ImportFolder::Place values;
  std::int64_t first_row = 0;  ///< in `values` as a matrix of rows
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::string scales_name;  ///< empty but for E4M3
  ImportFolder::Place scales;
  std::int64_t block = 0;

  std::int64_t begin() const;  ///< in the file
  std::int64_t bytes() const;  ///< of its rows there
};

/// Finds the weight that the model calls `name`, of `shape`. Throws Error(bad_data) where it is missing, has another
/// shape or a format that is not read.
RowSource find_rows(const ImportFolder& folder, const std::string& name, const Shape& shape);

/// [rows, columns] f32 at `first` and after it.
using TakeRows = std::function<void(std::int64_t first, std::int64_t rows, const float* values)>;

/// Reads them in order, some megabytes at a time. Throws Error(bad_data) for a value that is not finite.
void read_rows(const RowSource& source, const TakeRows& take);

/// Whether two weights are the same numbers; of one shape.
bool same_rows(const RowSource& a, const RowSource& b);

}  // namespace shoestring
