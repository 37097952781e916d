// The readers without the kernels: what a recipe may pin is looked up in this list instead of the tables of variants.
#include "kernels/variant_list.h"

namespace shoestring {

const std::vector<OpVariants>& op_variants() {
  static const std::vector<OpVariants> all = {
      {.op = "gemm", .variants = {"simd", "reference"}, .table = nullptr, .table_bytes = 0}};
  return all;
}

}  // namespace shoestring
