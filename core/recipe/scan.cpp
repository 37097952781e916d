#include "core/recipe/scan.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::size_t kLongestSection = 128;  // beyond what any section is called

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

bool is_control(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  return (code < 0x20 && letter != '\t') || code == 0x7f;
}

bool has_control(std::string_view text) {
  for (const char letter : text) {
    if (is_control(letter)) return true;
  }
  return false;
}

/// The code of a sequence whose bytes are a first one and those that follow it.
std::uint32_t code_of(std::string_view sequence) {
  const auto first = static_cast<unsigned char>(sequence[0]);
  std::uint32_t code = sequence.size() == 1 ? first : first & (0xFFu >> (sequence.size() + 1));
  for (std::size_t i = 1; i < sequence.size(); ++i)
    code = code << 6 | (static_cast<unsigned char>(sequence[i]) & 0x3Fu);
  return code;
}

/// Length of the UTF-8 sequence that starts `text`, 0 if it is broken, overlong or half a pair of UTF-16.
std::size_t utf8_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const std::size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (length == 0 || length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return 0;
  }
  constexpr std::array<std::uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  const std::uint32_t code = code_of(text.substr(0, length));
  const bool half = code >= 0xD800 && code <= 0xDFFF;
  return code >= kLeast[length] && code <= 0x10FFFF && !half ? length : 0;
}

/// The state of one pass over the lines.
class Scanner {
 public:
  Scanner(std::string name, Scan& scan) : name_(std::move(name)), scan_(scan) {}

  void line(std::string_view raw, int number) {
    number_ = number;
    if (raw.size() > static_cast<std::size_t>(kRecipeLineLimit)) {
      return mistake(raw, fmt::format("the line is {} bytes long, more than {}", raw.size(), kRecipeLineLimit));
    }
    std::string_view text = trimmed(raw.substr(0, raw.find('#')));
    if (text.empty()) return;
    if (has_control(text)) return mistake(text, fmt::format("{} holds a control character", quote_text(text)));
    if (text.front() == '[') return header(text);
    const auto equals = text.find('=');
    if (equals == std::string_view::npos) {
      return mistake(text, fmt::format("{} is neither [section] nor key = value", quote_text(text)));
    }
    entry(trimmed(text.substr(0, equals)), trimmed(text.substr(equals + 1)), text);
  }

 private:
  Origin origin(std::string_view text) const { return {name_, number_, std::string(text.substr(0, 4096))}; }

  void mistake(std::string_view text, std::string what) {
    scan_.mistakes.push_back({origin(text), section_, std::move(what)});
  }

  void header(std::string_view text) {
    const std::string_view inside = text.back() == ']' ? text.substr(1, text.size() - 2) : text.substr(1);
    section_ = trimmed(inside).substr(0, kLongestSection);  // it stands with every entry that follows
    in_section_ = true;
    scan_.headers.push_back({section_, origin(text)});
    if (text.back() != ']') mistake(text, fmt::format("{} lacks its closing ']'", quote_text(text)));
  }

  void entry(std::string_view key, std::string_view value, std::string_view text) {
    if (key.empty()) return mistake(text, fmt::format("{} has no key before '='", quote_text(text)));
    Entry found{section_, std::string(key), std::string(value), origin(text)};
    if (key == "include" && !in_section_) {
      scan_.includes.push_back(std::move(found));
    } else if (key == "include") {
      mistake(text, "include must stand before the first section");
    } else {
      scan_.entries.push_back(std::move(found));
    }
  }

  std::string name_;
  Scan& scan_;
  std::string section_;
  bool in_section_ = false;
  int number_ = 0;
};

/// What nobody sees, or what turns round what stands beside it: blanks that are none, fillers, marks of direction and
/// order (what Unicode calls default ignorable, and blanks).
bool is_invisible(std::uint32_t code) {
  constexpr auto kRanges = std::to_array<std::pair<std::uint32_t, std::uint32_t>>(
      {{0x80, 0xA0},       {0xAD, 0xAD},       {0x34F, 0x34F},    {0x61C, 0x61C},   {0x115F, 0x1160}, {0x1680, 0x1680},
       {0x17B4, 0x17B5},   {0x180B, 0x180F},   {0x2000, 0x200F},  {0x2028, 0x202F}, {0x205F, 0x206F}, {0x2800, 0x2800},
       {0x3000, 0x3000},   {0x3164, 0x3164},   {0xFE00, 0xFE0F},  {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB},
       {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}});
  return std::any_of(kRanges.begin(), kRanges.end(),
                     [&](const auto& range) { return code >= range.first && code <= range.second; });
}

/// Whether letters of ASCII stand in `width` bytes each.
bool is_wide(std::string_view text, std::size_t width) {
  const std::size_t probed = std::min<std::size_t>(text.size(), 64) / width * width;
  for (std::size_t at = 0; at < probed; at += width) {
    const std::string_view letter = text.substr(at, width);
    if (std::count(letter.begin(), letter.end(), '\0') != static_cast<std::ptrdiff_t>(width) - 1) return false;
  }
  return probed >= 4;
}

/// Why a whole text is no recipe, where a mistake a line would bury the reason; empty otherwise.
std::string_view other_encoding(std::string_view text) {
  using namespace std::string_view_literals;
  // Before UTF-16, whose mark this begins with.
  if (text.starts_with("\xFF\xFE\0\0"sv) || text.starts_with("\0\0\xFE\xFF"sv) || is_wide(text, 4)) return "UTF-32";
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF") || is_wide(text, 2)) return "UTF-16";
  return "";
}

/// Lines of one text are told apart by LF.
bool ends_lines_in_cr(std::string_view text) {
  const auto first = text.find('\r');
  return text.find('\n') == std::string_view::npos && text.find_first_not_of('\r', first) < text.size();
}

/// `spelt`: which codes are written as <U+NNNN>.
std::string quoted(std::string_view text, bool (*spelt)(std::uint32_t code)) {
  std::string result = "'";
  while (!text.empty()) {
    if (result.size() > 80) {
      result += "...";
      break;
    }
    const std::size_t length = utf8_length(text);
    if (length == 0 || is_control(text[0])) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    } else {
      const std::uint32_t code = code_of(text.substr(0, length));
      result += spelt(code) ? fmt::format("<U+{:04X}>", code) : std::string(text.substr(0, length));
      text.remove_prefix(length);
    }
  }
  return result + "'";
}

}  // namespace

std::string quote_text(std::string_view text) { return quoted(text, is_invisible); }

std::string quote_name(std::string_view text) {
  return quoted(text, [](std::uint32_t code) { return code >= 0x80; });
}

Scan scan_text(std::string_view text, const std::string& name) {
  Scan scan;
  Scanner scanner(name, scan);
  if (const std::string_view encoding = other_encoding(text); !encoding.empty()) {
    fail(ExitCode::bad_recipe, "{}: the file is {}, not UTF-8: save it as UTF-8, or convert it with iconv", name,
         encoding);
  }
  if (ends_lines_in_cr(text)) fail(ExitCode::bad_recipe, "{}: its lines end in CR only: save it with LF", name);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // byte order mark
  for (int number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    scanner.line(line, number);
  }
  return scan;
}

std::string read_small_file(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) {
    const ExitCode code = errno == ENOENT || errno == ENOTDIR ? ExitCode::missing_input : ExitCode::io;
    fail(code, "cannot open {}: {}", file.string(), system_reason(errno));
  }
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail(ExitCode::bad_recipe, "{} is not a regular file; write it into one", file.string());
  }
  if (status.st_size > kRecipeBytesLimit) {
    fail(ExitCode::bad_recipe, "{} is {} bytes long; such a file may have at most {}", file.string(),
         static_cast<std::int64_t>(status.st_size), kRecipeBytesLimit);
  }
  std::string content(static_cast<std::size_t>(status.st_size) + 1, '\0');
  std::size_t filled = 0;
  while (filled <= static_cast<std::size_t>(kRecipeBytesLimit)) {
    if (filled == content.size()) content.resize(2 * filled);  // it grew meanwhile
    const ssize_t got = ::read(descriptor, content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ExitCode::io, "cannot read {}: {}", file.string(), system_reason(errno));
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  if (filled > static_cast<std::size_t>(kRecipeBytesLimit)) {
    fail(ExitCode::bad_recipe, "{} grew beyond {} bytes while it was read", file.string(), kRecipeBytesLimit);
  }
  content.resize(filled);
  return content;
}

}  // namespace shoestring
