// What stands in a file's place where a repository was cloned without Git LFS: three lines of text that name it.
#pragma once

#include <string_view>

namespace shoestring {

/// What such a file begins with.
inline constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/v1\n";
/// What to do about one.
inline constexpr std::string_view kLfsRemedy = "fetch the file itself with `git lfs pull`";

}  // namespace shoestring
