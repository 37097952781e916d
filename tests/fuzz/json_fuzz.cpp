// JSON, the bounded reader that all others stand on: what is read, written and read again is the same text.
#include "kernels/base/json.h"

#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const std::string_view text = text_of(bytes);
    parse_json_text_field(text, "text", "line 1");
    const std::string once = parse_json(text, "foreign.json").dump();
    const std::string twice = parse_json(once, "written").dump();
    if (once != twice) contradiction("written and read again, JSON is another: " + once + " and " + twice);
  });
}

}  // namespace shoestring::fuzz
