// What a file is by its first bytes, where it is not text that can be read as it stands.
#pragma once

#include <cstddef>
#include <string_view>

namespace shoestring {

struct FileKind {
  std::string_view name;    ///< "gzip", "UTF-16"; empty: text
  std::string_view remedy;  ///< what makes text of it
  bool is_text() const { return name.empty(); }
};

constexpr std::size_t kFileKindBytes = 8192;  ///< how much of a file's front tells its kind

/// Known signatures first, since a compressed file may hold no NUL byte early on; then NUL bytes, which text has none
/// of. An empty front is text.
FileKind file_kind(std::string_view front);
/// Of a kind, by its name.
std::string_view remedy_of(std::string_view name);

}  // namespace shoestring
