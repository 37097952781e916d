// What it costs a training step that this machine has only plain rows for ops that are hot: no run crawls silently.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

struct ReferenceCost {
  std::vector<std::string> ops;  ///< hot ops of the recipe for which this machine has but a plain row: "op=row"
  double times = 1;              ///< how many times as long a step takes as with the AVX2 rows of all of them

  /// "no vector rows here for gemm=portable, rope=reference: a step takes about 12 times as long"; empty without ops.
  std::string to_string() const;
};

/// Of the phase in which they cost most: the plain rows of attention fall further behind than those of products do, so
/// that it depends on the recipe's extents. `lacks` says what the machine lacks for rows of a name (machine_lacks of
/// kernels/variant_list.h, or a test's).
ReferenceCost reference_cost(const Recipe& recipe, std::string_view (*lacks)(std::string_view variant));

/// Throws Error(bad_recipe) where kernels.allow_reference is automatic and a step would take more than ten times as
/// long, or where it is no and some op has nothing but its reference.
void check_reference_cost(const ReferenceCost& cost, AllowReference allowed);

}  // namespace shoestring
