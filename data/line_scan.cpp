#include "data/line_scan.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>

#include "data/characters.h"

namespace shoestring {
namespace {

constexpr int kMostDepth = 32;
constexpr std::ptrdiff_t kMostDigits = 18;  // so many fit 64 bits

// Bytes at the front of `text` that stand in a JSON string for themselves and are ASCII: eight at a time, those that do
// not marked in their highest bits ("Bit Twiddling Hacks", S. Anderson, "Determine if a word has a byte less than n").
std::size_t plain_bytes(std::string_view text) {
  constexpr std::uint64_t kOnes = 0x0101010101010101u, kHigh = 0x8080808080808080u;
  const auto zeros = [](std::uint64_t word) { return (word - kOnes) & ~word; };
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    const std::uint64_t special =
        (word | ((word - 0x20 * kOnes) & ~word) | zeros(word ^ '"' * kOnes) | zeros(word ^ '\\' * kOnes)) & kHigh;
    if (special != 0) return at + static_cast<std::size_t>(std::countr_zero(special)) / 8;
  }
  for (; at < text.size(); ++at) {
    const auto byte = static_cast<std::uint8_t>(text[at]);
    if (byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\') break;
  }
  return at;
}

void append_utf8(std::string& to, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { to += static_cast<char>(byte); };
  const auto follow = [&](int shift) { put(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    follow(0);
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    follow(6);
    follow(0);
  } else {
    put(0xF0 | code >> 18);
    follow(12);
    follow(6);
    follow(0);
  }
}

/// Front to back; each `take` says whether what it is named for stood there, and is passed by.
class LineScan {
 public:
  explicit LineScan(std::string_view line) : rest_(line) {}

  bool take_line(std::string_view key, std::optional<std::string>& found) {
    blanks();
    if (!take('{')) return false;
    blanks();
    if (take('}')) return false;
    do {
      key_.clear();
      blanks();
      if (!take_string(&key_)) return false;
      blanks();
      if (!take(':')) return false;
      blanks();
      if (key_ != key) {
        if (!take_value(1)) return false;
        blanks();
        continue;
      }
      if (found || !take_string(&found.emplace())) return false;  // twice, or no text
      blanks();
    } while (take(','));
    if (!take('}')) return false;
    blanks();
    return rest_.empty();
  }

 private:
  bool take(char byte) {
    if (rest_.empty() || rest_.front() != byte) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  void blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }

  bool take_value(int depth) {
    if (rest_.empty() || depth > kMostDepth) return false;
    switch (rest_.front()) {
      case '"': return take_string(nullptr);
      case '{': return take_members(depth, '{', '}');
      case '[': return take_members(depth, '[', ']');
      case 't': return take("true");
      case 'f': return take("false");
      case 'n': return take("null");
      default: return take_number();
    }
  }

  bool take_members(int depth, char open, char close) {
    if (!take(open)) return false;
    blanks();
    if (take(close)) return true;
    do {
      blanks();
      if (open == '{') {
        if (!take_string(nullptr)) return false;
        blanks();
        if (!take(':')) return false;
        blanks();
      }
      if (!take_value(depth + 1)) return false;
      blanks();
    } while (take(','));
    return take(close);
  }

  // Without an exponent, and so short that it cannot be too large.
  bool take_number() {
    take('-');
    const std::string_view whole = rest_;
    const std::ptrdiff_t digits = take_digits();
    if (digits == 0 || digits > kMostDigits || (digits > 1 && whole.front() == '0')) return false;
    if (take('.') && take_digits() == 0) return false;
    return rest_.empty() || (rest_.front() != 'e' && rest_.front() != 'E');
  }
  std::ptrdiff_t take_digits() {
    const std::size_t digits = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    rest_.remove_prefix(digits);
    return static_cast<std::ptrdiff_t>(digits);
  }

  // `to`: where the text goes, if it is wanted.
  bool take_string(std::string* to) {
    if (!take('"')) return false;
    while (!rest_.empty()) {
      std::size_t same = plain_bytes(rest_);
      while (same < rest_.size() && static_cast<std::uint8_t>(rest_[same]) >= 0x80) {
        const std::size_t bytes = character_bytes(rest_.substr(same));
        if (bytes == 0) return false;
        same += bytes;
        same += plain_bytes(rest_.substr(same));
      }
      if (to != nullptr) to->append(rest_.substr(0, same));
      rest_.remove_prefix(same);
      if (take('"')) return true;
      if (!take('\\') || !take_escape(to)) return false;
    }
    return false;
  }

  bool take_escape(std::string* to) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    if (rest_.empty()) return false;
    const std::size_t name = kNames.find(rest_.front());
    if (name != std::string_view::npos) {
      rest_.remove_prefix(1);
      if (to != nullptr) *to += kMeant[name];
      return true;
    }
    std::uint32_t code = 0;
    if (!take_hex(code)) return false;
    if (code >= 0xD800 && code < 0xE000) {
      std::uint32_t low = 0;
      if (code >= 0xDC00 || !take('\\') || !take_hex(low) || low < 0xDC00 || low >= 0xE000) return false;
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (to != nullptr) append_utf8(*to, code);
    return true;
  }
  bool take_hex(std::uint32_t& code) {
    if (rest_.size() < 5 || !take('u')) return false;
    const std::string_view digits = rest_.substr(0, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (error != std::errc() || end != digits.data() + digits.size()) return false;
    rest_.remove_prefix(digits.size());
    return true;
  }

  std::string_view rest_;
  std::string key_;
};

}  // namespace

std::optional<std::string> scan_text_field(std::string_view line, std::string_view key) {
  std::optional<std::string> found;
  if (!LineScan(line).take_line(key, found)) return std::nullopt;
  return found;
}

}  // namespace shoestring
