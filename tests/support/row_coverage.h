// Which rows of which ops the tests ran. A test that loops over a table asks `runs`; rows that an op chose by itself
// are heard of through the observer. With SHOESTRING_ROW_COVERAGE=FILE in the environment each process of the tests
// appends "op row" to FILE, once for each; row_coverage_report says what is missing.
#pragma once

#include <string_view>

#include "kernels/base/variant.h"

namespace shoestring::testing {

void record_row(std::string_view op, std::string_view row);
void record_row_at(const void* row, std::string_view name);

/// Whether `row`, which stands in its op's table, takes `args`. It is then taken to be run.
template <class Args>
bool runs(const Variant<Args>& row, const Args& args) {
  if (!row.refuses(args).empty()) return false;
  record_row_at(&row, row.name);
  return true;
}

}  // namespace shoestring::testing
