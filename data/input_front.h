// What the first bytes of a text file say of how to read it, where its name leaves that open or says otherwise.
#pragma once

#include <string>
#include <string_view>

#include "data/line_fields.h"

namespace shoestring {

struct InputName {
  std::string_view plain;  ///< without what says that it is packed
  bool piped = false;      ///< it has none of its own
};

bool is_blank(std::string_view text);

/// Whether each line is a JSON object: by the name and, where that leaves it open, by the front, up to kFileKindBytes
/// of the file.
bool holds_lines_of_json(InputName input, std::string_view front, const LineFields& fields);

/// Of a file that is read as plain text and may be meant as something else: what, and what to do; empty for other text.
std::string doubt_of(InputName input, std::string_view front, const LineFields& fields);

}  // namespace shoestring
