#include "tests/fuzz/tokenizer_target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] { use(*tokenizer_from(std::string(text_of(bytes)), "tokenizer.json"), bytes); },
          {.memory_per_byte = 2048});
}

}  // namespace shoestring::fuzz
