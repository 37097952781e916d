// Internal to line_fields: the text of a line of JSON at the pace of memory, where the line is of the common kind.
//
// Reading corpora is mostly reading lines of JSON, twice, on one thread. What this scanner takes is JSON that the
// bounded reader (kernels/base/json.h) takes too, with the same text; whatever it is not sure of it leaves to it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace shoestring {

/// The text under `key` of the object that `line` is. Nothing: ask parse_json_text_field, which may find one or say
/// what is wrong.
std::optional<std::string> scan_text_field(std::string_view line, std::string_view key);

}  // namespace shoestring
