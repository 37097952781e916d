// metrics.jsonl, for the curves of a page.
#include "core/budget/run_curve.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  const MemoryFile file(bytes);
  bounded(bytes, [&] {
    if (read_curve(file.path()).points.size() > 120) contradiction("more points than were asked for");
  });
}

}  // namespace shoestring::fuzz
