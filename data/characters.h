// Characters of UTF-8 text, for splitting it into words: where one ends, what kind it is, which form is canonical.
//
// Kinds are Unicode's general categories as utf8proc knows them, in one table by code point; White_Space is what `\s`
// matches in the patterns of tokenizer files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

/// Bits of a character's kinds; 0 for controls, format characters and what is not assigned.
namespace kind {
constexpr std::uint8_t letter = 1;      ///< \p{L}
constexpr std::uint8_t number = 2;      ///< \p{N}
constexpr std::uint8_t space = 4;       ///< \s, line ends included
constexpr std::uint8_t line_end = 8;    ///< \r, \n
constexpr std::uint8_t mark = 16;       ///< \p{M}
constexpr std::uint8_t sign = 32;       ///< \p{P}, \p{S}
constexpr std::uint8_t unified = 64;    ///< hiragana, katakana, and ideographs from U+4E00 to U+9FA5
constexpr std::uint8_t unsteady = 128;  ///< a text with one of these may not be in form NFC
}  // namespace kind

/// Bytes of the well-formed UTF-8 character at the front of `text`, which is not empty; 0 where there is none.
std::size_t character_bytes(std::string_view text);

/// How many bytes at the front of `text` are well-formed UTF-8.
std::size_t well_formed_bytes(std::string_view text);

/// Kinds by code point, 0x110000 of them; made on first use.
const std::uint8_t* character_kinds();

struct Character {
  std::uint8_t kinds = 0;
  std::size_t end = 0;  ///< where the next one begins
};

/// The character at `at`, within well-formed text.
inline Character character_at(const std::uint8_t* kinds, std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<std::uint8_t>(text[at + i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {kinds[lead], at + 1};
  const std::uint32_t second = byte(1) & 0x3F;
  if (lead < 0xE0) return {kinds[(lead & 0x1F) << 6 | second], at + 2};
  const std::uint32_t third = byte(2) & 0x3F;
  if (lead < 0xF0) return {kinds[(lead & 0x0F) << 12 | second << 6 | third], at + 3};
  return {kinds[(lead & 0x07) << 18 | second << 12 | third << 6 | (byte(3) & 0x3F)], at + 4};
}

/// Whether well-formed text holds a character of kind::unsteady.
bool may_change_in_nfc(std::string_view text);
/// Well-formed text in Unicode's normalisation form C.
std::string to_nfc(std::string_view text);

}  // namespace shoestring
