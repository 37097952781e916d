// What of a line of JSON is the text, and whether the line is wanted.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_format.h"

namespace shoestring {

/// A path's value must be this: as text, or as JSON writes a number or flag.
struct FieldFilter {
  std::string path;
  std::string value;
};

struct LineFields {
  /// "text"; a path through objects: "data.text"; several are joined with an empty line between, those that a line has
  /// not are left out, and counted (CorpusCounts::lines_without).
  std::vector<std::string> text{"text"};
  std::vector<FieldFilter> where{};  ///< all of them
  std::optional<ChatFormat> chat{};  ///< a line is a conversation, and the line as it stands is the text
};

/// "lang=en" as a filter. Throws Error(usage).
FieldFilter field_filter(const std::string& word);

/// One line's answer.
struct LineText {
  bool wanted = true;                 ///< by `where`
  std::optional<std::string> text;    ///< nothing: no object, or none of the fields holds text
  std::vector<std::size_t> absent{};  ///< which of several fields hold none, by their places
};

/// `where` names file and line in errors. Throws Error(bad_data) for what is not JSON and, with `chat`, for
/// what is no conversation, has no place in the format, or holds nothing to learn. A key that holds dots
/// itself is found before a path is walked.
LineText text_of_line(std::string_view line, const LineFields& fields, const std::string& where);

}  // namespace shoestring
