// Which ops can be pinned to which variants: the tables of all ops, by name. For whoever checks names a user gives.
#pragma once

#include <string_view>
#include <vector>

namespace shoestring {

struct OpVariants {
  std::string_view op;  ///< as `choose` is told it
  std::vector<std::string_view> variants;
};

/// Every op of this build that chooses, with its rows in order of preference.
const std::vector<OpVariants>& op_variants();

}  // namespace shoestring
