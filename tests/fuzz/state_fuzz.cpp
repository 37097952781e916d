// Where a run stands, as a checkpoint's training/state.json says: read, written and read again it is the same.
#include "core/training/training_state.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const std::string once = to_json(training_state_from_json(std::string(text_of(bytes)), "state.json"));
    const std::string twice = to_json(training_state_from_json(once, "written"));
    if (once != twice) contradiction("a state written and read again is another:\n" + once + "\n" + twice);
  });
}

}  // namespace shoestring::fuzz
