// What a command says on stderr. A stderr that cannot be written changes nothing else: no exit code, no build, no run.
// Names that strangers have chosen steer no terminal.
#pragma once

#include <fmt/core.h>

#include <cstdio>
#include <utility>

#include "kernels/base/printable.h"

namespace shoestring {

/// Writes the formatted line to stderr, or not where that fails (`fmt::print` would throw).
template <class... Values>
void say(fmt::format_string<Values...> text, Values&&... values) {
  std::fputs((printable(fmt::format(text, std::forward<Values>(values)...)) + "\n").c_str(), stderr);
}

}  // namespace shoestring
