// Text of strangers on its way to a terminal: names of tensors, tasks and files, and errors that quote them.
#pragma once

#include <string>
#include <string_view>

namespace shoestring {

/// `text` with everything that steers a terminal written out ("\x1b"): control characters but line end and tab, those
/// of U+0080 to U+009F, marks that turn the direction of what is around them, U+2028 and U+2029, and bytes that are no
/// UTF-8.
std::string printable(std::string_view text);

}  // namespace shoestring
