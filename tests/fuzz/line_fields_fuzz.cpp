// Lines of JSONL. The first line of the input says which fields are asked for, with blanks between; "=" makes a filter.
#include "data/line_fields.h"

#include <sstream>

#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const std::string_view all = text_of(bytes);
    const std::size_t end = std::min(all.find('\n'), all.size());
    LineFields fields{.text = {}};
    std::istringstream words{std::string(all.substr(0, std::min<std::size_t>(end, 256)))};
    for (std::string word; words >> word;) {
      if (word.find('=') == std::string::npos) {
        fields.text.push_back(word);
      } else {
        fields.where.push_back(field_filter(word));
      }
    }
    if (fields.text.empty()) fields.text.emplace_back("text");
    for (std::size_t at = end; at < all.size();) {
      const std::size_t next = std::min(all.find('\n', at + 1), all.size());
      text_of_line(all.substr(at + 1, next - at - 1), fields, "corpus.jsonl:1");
      at = next;
    }
  });
}

}  // namespace shoestring::fuzz
