#include "data/document_text.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

namespace shoestring {
namespace {

constexpr std::string_view kBlanks = " \t\r\n\f\v";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

std::vector<std::string_view> pieces_of(std::string_view text, std::string_view border) {
  std::vector<std::string_view> pieces;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(border, begin), text.size());
    const std::string_view piece = trimmed(text.substr(begin, end - begin));
    if (!piece.empty()) pieces.push_back(piece);
    begin = end + border.size();
  }
  return pieces;
}

std::uint64_t hash_of(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

/// Hashes of all runs of `n` words, by their first word.
std::vector<std::uint64_t> runs_of(const std::vector<std::string_view>& words, std::size_t n) {
  std::vector<std::uint64_t> hashes;
  for (const std::string_view word : words) hashes.push_back(hash_of(word));
  std::vector<std::uint64_t> runs;
  for (std::size_t at = 0; at + n <= hashes.size(); ++at) {
    runs.push_back(XXH3_64bits(&hashes[at], n * sizeof hashes[0]));
  }
  return runs;
}

std::size_t bytes_of(const std::vector<std::string_view>& words) {
  std::size_t bytes = 0;
  for (const std::string_view word : words) bytes += word.size();
  return bytes;
}

double share(std::size_t part, std::size_t all) {
  return all == 0 ? 0 : static_cast<double>(part) / static_cast<double>(all);
}

struct Script {
  std::string_view name;
  char32_t first, last;
};

// Blocks of the Unicode standard that hold a script's letters; several rows make one script.
constexpr std::array<Script, 29> kScripts = {{
    {"latin", U'A', U'Z'},       {"latin", U'a', U'z'},        {"latin", 0xC0, 0x24F},
    {"latin", 0x1E00, 0x1EFF},   {"greek", 0x370, 0x3FF},      {"greek", 0x1F00, 0x1FFF},
    {"cyrillic", 0x400, 0x52F},  {"armenian", 0x530, 0x58F},   {"hebrew", 0x590, 0x5FF},
    {"arabic", 0x600, 0x6FF},    {"arabic", 0x750, 0x77F},     {"devanagari", 0x900, 0x97F},
    {"bengali", 0x980, 0x9FF},   {"gurmukhi", 0xA00, 0xA7F},   {"gujarati", 0xA80, 0xAFF},
    {"tamil", 0xB80, 0xBFF},     {"telugu", 0xC00, 0xC7F},     {"kannada", 0xC80, 0xCFF},
    {"malayalam", 0xD00, 0xD7F}, {"thai", 0xE00, 0xE7F},       {"georgian", 0x10A0, 0x10FF},
    {"hangul", 0x1100, 0x11FF},  {"ethiopic", 0x1200, 0x137F}, {"khmer", 0x1780, 0x17FF},
    {"kana", 0x3041, 0x30FF},    {"han", 0x3400, 0x4DBF},      {"han", 0x4E00, 0x9FFF},
    {"hangul", 0xAC00, 0xD7A3},  {"han", 0x20000, 0x323AF},
}};

// The next character; what is not UTF-8 is one of no script.
char32_t next_character(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  const int more = lead < 0xC0 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  char32_t character = more == 0 ? lead : lead & (0x3Fu >> more);
  for (int i = 0; i < more; ++i) {
    if (at == text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) return 0;
    character = character << 6 | (static_cast<unsigned char>(text[at++]) & 0x3Fu);
  }
  return lead >= 0x80 && more == 0 ? 0 : character;
}

}  // namespace

const std::vector<std::string_view>& DocumentText::words() const {
  if (words_) return *words_;
  words_.emplace();
  for (std::size_t begin = text_.find_first_not_of(kBlanks); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text_.find_first_of(kBlanks, begin), text_.size());
    words_->push_back(text_.substr(begin, end - begin));
    begin = text_.find_first_not_of(kBlanks, end);
  }
  return *words_;
}

const std::vector<std::string_view>& DocumentText::lines() const {
  if (!lines_) lines_ = pieces_of(text_, "\n");
  return *lines_;
}

const std::vector<std::string_view>& DocumentText::paragraphs() const {
  if (!paragraphs_) paragraphs_ = pieces_of(text_, "\n\n");
  return *paragraphs_;
}

Repetition repetition(const std::vector<std::string_view>& pieces) {
  std::unordered_set<std::string_view> seen;
  std::size_t repeated = 0;
  std::size_t bytes = 0;
  for (const std::string_view piece : pieces) {
    if (seen.insert(piece).second) continue;
    ++repeated;
    bytes += piece.size();
  }
  return {share(repeated, pieces.size()), share(bytes, bytes_of(pieces))};
}

double repeated_runs(const std::vector<std::string_view>& words, std::size_t n) {
  std::unordered_set<std::uint64_t> seen;
  std::size_t bytes = 0;
  std::size_t counted = 0;  // words before this one have been
  const std::vector<std::uint64_t> runs = runs_of(words, n);
  for (std::size_t at = 0; at < runs.size(); ++at) {
    if (seen.insert(runs[at]).second) continue;
    for (std::size_t word = std::max(at, counted); word < at + n; ++word) bytes += words[word].size();
    counted = at + n;
  }
  return share(bytes, bytes_of(words));
}

double most_frequent_run(const std::vector<std::string_view>& words, std::size_t n) {
  std::unordered_map<std::uint64_t, std::size_t> counts;
  const std::vector<std::uint64_t> runs = runs_of(words, n);
  std::size_t most = 1;
  std::size_t bytes = 0;  // of the most frequent run, all of them together
  for (std::size_t at = 0; at < runs.size(); ++at) {
    const std::size_t count = ++counts[runs[at]];
    if (count <= most) continue;
    most = count;
    bytes = 0;
    for (std::size_t word = at; word < at + n; ++word) bytes += words[word].size();
    bytes *= count;
  }
  return share(bytes, bytes_of(words));
}

double script_share(std::string_view text, const std::vector<std::string>& scripts) {
  std::size_t letters = 0;
  std::size_t own = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char32_t character = next_character(text, at);
    const auto script = std::find_if(kScripts.begin(), kScripts.end(), [&](const Script& one) {
      return character >= one.first && character <= one.last;
    });
    if (script == kScripts.end()) continue;
    ++letters;
    own += std::find(scripts.begin(), scripts.end(), script->name) != scripts.end() ? 1 : 0;
  }
  return letters == 0 ? 1 : share(own, letters);
}

std::vector<std::string_view> known_scripts() {
  std::vector<std::string_view> names;
  for (const Script& script : kScripts) {
    if (std::find(names.begin(), names.end(), script.name) == names.end()) names.push_back(script.name);
  }
  return names;
}

}  // namespace shoestring
