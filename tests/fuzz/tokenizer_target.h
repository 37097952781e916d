// What is asked of any tokenizer that was taken: text in and out, without reading past anything.
#pragma once

#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

inline void use(const Tokenizer& tokenizer, Bytes file) {
  const std::string text =
      "int main() { return 42; }\n\tna\xC3\xAFve \xE6\x97\xA5\xE6\x9C\xAC \xFF\xC0  \xE2\x96\x81x <s>" +
      std::string(text_of(file.subspan(0, std::min<std::size_t>(file.size(), 64))));
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  std::vector<std::int32_t> back(ids.begin(), ids.end());
  for (const std::int32_t id : back) {
    if (id < 0 || static_cast<std::uint32_t>(id) >= tokenizer.vocabulary_size()) contradiction("an id out of range");
  }
  tokenizer.decode(back);
  tokenizer.companion_files();
  tokenizer.special();
}

}  // namespace shoestring::fuzz
