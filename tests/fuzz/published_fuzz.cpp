// The table of published throughput that the planner is held against.
#include "core/budget/published_rows.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] { read_published_rows(file.path()); });
}

}  // namespace shoestring::fuzz
