// Compressed bytes for tests, made by the libraries' own packers.
#pragma once

#include <string>
#include <string_view>

namespace shoestring::testing {

/// `bytes` as one stream of "gzip", "zstd", "xz" or "bzip2".
std::string packed(std::string_view packing, std::string_view bytes);

}  // namespace shoestring::testing
