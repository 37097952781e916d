// Which ops can be pinned to which variants: the tables of all ops, by name. For whoever checks names a user gives, and
// for whoever asks what this processor can run.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace shoestring {

struct OpVariants {
  std::string_view op;  ///< as `choose` is told it
  std::vector<std::string_view> variants;
  const void* table;        ///< the first row
  std::size_t table_bytes;  ///< of all rows
};

/// Every op of this build that chooses, with its rows in order of preference.
const std::vector<OpVariants>& op_variants();

/// The op in whose table the row at this address stands; empty for none.
std::string_view op_of_row(const void* row);

/// What a row of that name needs and this machine lacks ("AVX-512", "a CUDA device"), whatever its arguments; empty
/// where it can run. Throws Error(bug) for a name that no table has.
std::string_view machine_lacks(std::string_view variant);

}  // namespace shoestring
