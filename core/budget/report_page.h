// The pieces of a page: escaped text, numbers that say where they stand in the JSON document, tables, the frame around
// it all. Not for others than the pages. No page needs a script; its policy admits one style sheet, by hash, and
// nothing else.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring::page {

std::string escaped(std::string_view text);
/// What was read from a file, as it stands there.
std::string said(std::string_view text, std::size_t longest = 400);

/// A number: `text` for people, the value itself, and the JSON pointer (RFC 6901) of the same value in report.json.
std::string number(double value, const std::string& text, const std::string& pointer);
std::string number(std::int64_t value, const std::string& text, const std::string& pointer);
/// A key as it stands in a pointer.
std::string pointer_key(std::string_view key);
// The usual texts; "–" where the value is 0 and means "not known".
std::string amount(double value, const std::string& pointer);       ///< 2.788M, 0.0497
std::string count(std::int64_t value, const std::string& pointer);  ///< whole, with thousands apart
std::string money(double value, const std::string& pointer);        ///< $1.234
std::string share(double value, const std::string& pointer);        ///< 12.3%
std::string signed_share(double value, const std::string& pointer);

/// Cells are HTML. The first column is the row's header; all others are numbers unless named in `texts`.
struct Table {
  std::string caption;  ///< for who cannot see it
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::size_t> texts;  ///< columns that hold words
  bool last_is_sum = false;
};
std::string html(const Table& table);
/// The same behind a line that opens it.
std::string folded(const std::string& line, const std::string& content);

std::string section(const std::string& title, const std::string& content, const char* look = "card");

/// The whole document.
std::string document(const std::string& title, const std::string& content, int refresh_seconds);

/// The style sheet of all pages (report_style.cpp).
std::string_view style();

}  // namespace shoestring::page
