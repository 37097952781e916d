#include "data/input_front.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "data/corpus_walk.h"
#include "data/file_kind.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

// C4 calls its lines of JSON so; elsewhere it is one value over many lines.
bool is_open(InputName input) { return input.piped || input.plain.ends_with(".json"); }

// Whether the first line is an object with the text.
bool begins_with_line(std::string_view front, const LineFields& fields) {
  const std::size_t end = front.find('\n');
  if (end == std::string_view::npos && front.size() >= kFileKindBytes) {
    return front.find_first_not_of(" \t\r") == front.find('{') && front.find('{') != std::string_view::npos;
  }
  try {
    return text_of_line(front.substr(0, end), fields, "").text.has_value();
  } catch (const Error&) {
    return false;
  }
}

bool is_object(std::string_view line, bool cut) {
  if (cut) return line.substr(std::min(line.size(), line.find_first_not_of(" \t"))).starts_with("{\"");
  try {
    return parse_json(line, "").is_object();
  } catch (const Error&) {
    return false;
  }
}

// Whether the first two lines, blank ones aside, are objects of any kind.
bool begins_with_objects(std::string_view front) {
  const bool whole = front.size() < kFileKindBytes;
  int left = 2;
  while (left > 0 && !front.empty()) {
    const std::size_t end = front.find('\n');
    const std::string_view line = front.substr(0, end);
    front.remove_prefix(end == std::string_view::npos ? front.size() : end + 1);
    if (is_blank(line)) continue;
    if (!is_object(line, end == std::string_view::npos && !whole)) return false;
    --left;
  }
  return left == 0;
}

// An array of objects.
bool begins_with_array(std::string_view front) {
  const std::size_t bracket = front.find_first_not_of(" \t\r\n");
  if (bracket == std::string_view::npos || front[bracket] != '[') return false;
  const std::size_t next = front.find_first_not_of(" \t\r\n", bracket + 1);
  return next != std::string_view::npos && front[next] == '{';
}

}  // namespace

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

bool holds_lines_of_json(InputName input, std::string_view front, const LineFields& fields) {
  return holds_lines(input.plain) || (is_open(input) && begins_with_line(front, fields));
}

std::string doubt_of(InputName input, std::string_view front, const LineFields& fields) {
  if (begins_with_array(front)) return "is one JSON array; write one object a line (`jq -c .[]`)";
  if (is_open(input) && begins_with_objects(front)) {
    return fmt::format("its lines look like JSONL, without text under \"{}\"; name the field that holds it: --field",
                       fmt::join(fields.text, ","));
  }
  if (!is_open(input) && (begins_with_line(front, fields) || begins_with_objects(front))) {
    return "its lines look like JSONL; name it .jsonl, or feed it through `-`";
  }
  return "";
}

}  // namespace shoestring
