// The text of tokens as they come, in pieces that may be shown: no half characters, nothing behind a stop text.
//
// A token may end inside a character, and a stop text may begin in one token and end in a later one: what may still
// turn out to be part of either is kept back. Bytes that are no UTF-8 come out as they are, once what follows says so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace shoestring {

class TextStream {
 public:
  /// Borrows the tokenizer. The text ends before the first of `stops` in it; none of them may be empty.
  explicit TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops = {});

  /// What can be shown now that `id` has come; nothing once stopped.
  std::string add(std::int32_t id);
  /// What was kept back, at the end of the tokens.
  std::string finish();
  /// Whether a stop text has come.
  bool stopped() const { return stopped_; }

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::string pending_;
  bool stopped_ = false;
};

/// Bytes at the end of `text` that begin a UTF-8 character without ending it: 0 to 3.
std::size_t unfinished_bytes(std::string_view text);

}  // namespace shoestring
