// A SentencePiece model: looked at by sentencepiece_check before the library, which trusts it, sees the bytes.
#include "tests/fuzz/tokenizer_target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] { use(*tokenizer_from(std::string(text_of(bytes)), "tokenizer.model"), bytes); },
          {.memory_per_byte = 2048});
}

}  // namespace shoestring::fuzz
