#include "data/byte_characters.h"

#include <cstdint>

namespace shoestring {
namespace {

constexpr int kCodes = 0x100 + 68;  // the last byte that is not printable stands for the last of them

std::array<int, 256> codes_of_bytes() {
  std::array<int, 256> codes{};
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    codes[static_cast<std::size_t>(byte)] = printable ? byte : next++;
  }
  return codes;
}

std::array<int, kCodes> bytes_of_codes() {
  std::array<int, kCodes> bytes;
  bytes.fill(-1);
  const std::array<int, 256> codes = codes_of_bytes();
  for (int byte = 0; byte < 256; ++byte) bytes[static_cast<std::size_t>(codes[static_cast<std::size_t>(byte)])] = byte;
  return bytes;
}

}  // namespace

std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  const std::array<int, 256> codes = codes_of_bytes();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const int code = codes[byte];
    if (code >= 0x80) characters[byte].push_back(static_cast<char>(0xc0 | code >> 6));
    characters[byte].push_back(static_cast<char>(code < 0x80 ? code : 0x80 | (code & 0x3f)));
  }
  return characters;
}

std::optional<std::string> bytes_of_characters(std::string_view text) {
  static const std::array<int, kCodes> kBytes = bytes_of_codes();
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); ++at) {
    unsigned code = static_cast<std::uint8_t>(text[at]);
    if (code >= 0x80) {
      if (code < 0xc2 || code > 0xdf || at + 1 == text.size()) return std::nullopt;
      const unsigned next = static_cast<std::uint8_t>(text[++at]);
      if ((next & 0xc0) != 0x80) return std::nullopt;
      code = (code & 0x1f) << 6 | (next & 0x3f);
    }
    if (code >= kCodes || kBytes[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[code]));
  }
  return bytes;
}

}  // namespace shoestring
