#include "kernels/base/printable.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

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

/// What is seen of nothing and changes what is seen around it: marks of direction, and other line ends.
bool turns(std::string_view character) {
  constexpr std::array<std::string_view, 14> kTurning = {"\u061C", "\u200E", "\u200F", "\u2028", "\u2029",
                                                         "\u202A", "\u202B", "\u202C", "\u202D", "\u202E",
                                                         "\u2066", "\u2067", "\u2068", "\u2069"};
  return std::find(kTurning.begin(), kTurning.end(), character) != kTurning.end();
}

}  // namespace

std::string printable(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const std::size_t length = shown_length(text);
    const std::string_view bytes = text.substr(0, std::max<std::size_t>(1, length));
    if (length == 0 || turns(bytes)) {
      for (const char byte : bytes) shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
    } else {
      shown += bytes;
    }
    text.remove_prefix(bytes.size());
  }
  return shown;
}

}  // namespace shoestring
