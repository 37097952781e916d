// SHA-256 (FIPS 180-4): a page's security policy names its style sheet by it. Not for large files.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

std::array<std::uint8_t, 32> sha256(std::string_view bytes);
/// The same in base 64 with padding, as a content security policy writes it.
std::string sha256_base64(std::string_view bytes);

}  // namespace shoestring
