// The characters that stand for bytes where a vocabulary must be text, as GPT-2's does it: printable Latin-1 for
// itself, the other bytes in turn for the characters from U+0100 on. All take one or two bytes of UTF-8.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace shoestring {

std::array<std::string, 256> byte_characters();

/// The bytes that `text` stands for; nothing where a character of it stands for no byte.
std::optional<std::string> bytes_of_characters(std::string_view text);

}  // namespace shoestring
