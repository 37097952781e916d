// JSON as Python's json.dumps(value, ensure_ascii=False) writes it: what chat templates of others print tools and the
// arguments of calls with, blanks and all. Models were trained on that very text.
#pragma once

#include <string>

#include "kernels/base/json.h"

namespace shoestring {

/// On one line, ", " and ": " between; with `indent` blanks a level where that is above 0. Keys in order of writing.
std::string python_json(const Json& value, int indent = 0);

}  // namespace shoestring
