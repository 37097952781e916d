#include "kernels/base/printable.h"

#include <fmt/core.h>

namespace shoestring {
namespace {

/// Bytes of the character that `text` begins with; 0 where it steers a terminal or is no UTF-8.
std::size_t shown_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return (first >= 0x20 && first != 0x7F) || first == '\n' || first == '\t' ? 1 : 0;
  const std::size_t length = first >= 0xF0 && first < 0xF5 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (first >= 0xF5 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (at(i) < 0x80 || at(i) >= 0xC0) return 0;
  }
  return first == 0xC2 && at(1) < 0xA0 ? 0 : length;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t length = shown_length(text);
    if (length == 0) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    shown += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return shown;
}

}  // namespace shoestring
