// Line-aware reading of INI text: every entry knows its file and line, and every line that is no entry is a mistake.
// Knows nothing of recipes; hardware files are read with it too. Text is hostile until proven otherwise: sizes, control
// characters and include cycles are bounded here.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/parse.h"

namespace shoestring {

/// One "key = value" under its section (empty before the first one). Comment and surrounding blanks are gone.
struct Entry {
  std::string section;
  std::string key;
  std::string value;
  Origin origin;

  std::string dotted() const { return section.empty() ? key : section + "." + key; }
};

struct Header {
  std::string section;
  Origin origin;
};

struct Scan {
  std::vector<Entry> entries;
  std::vector<Entry> includes;  ///< "include = FILE" lines before the first section
  std::vector<Header> headers;
  std::vector<Mistake> mistakes;
};

/// Scans text that `name` stands for. Throws Error(bad_recipe) for a text of another encoding or with other ends of
/// lines, of which every line would be a mistake.
Scan scan_text(std::string_view text, const std::string& name);

/// The content of a regular file of at most kRecipeBytesLimit bytes. Throws Error(missing_input) if there is none,
/// Error(bad_recipe) if it is something else or too long.
std::string read_small_file(const std::filesystem::path& file);

/// 'text' for a message: at most some 80 bytes, control characters and broken UTF-8 as \xNN, what a person cannot see
/// (odd blanks, marks of width and direction) as <U+NNNN>.
std::string quote_text(std::string_view text);

/// The same for what was taken for a name of ours (a section, a key, a word): these are of ASCII, and of a letter that
/// only looks like one of them its code is shown.
std::string quote_name(std::string_view text);

}  // namespace shoestring
