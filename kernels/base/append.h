// Appending to a file that many lines go into: a ledger, metrics, events.
#pragma once

#include <filesystem>
#include <string_view>

namespace shoestring {

/// Appends all of `bytes` to a file opened with O_APPEND. What the system took of them before it refused the rest is
/// taken back, so that the next line begins clean; then throws Error(io) as fail_io.
void append(int descriptor, const std::filesystem::path& path, std::string_view bytes);

}  // namespace shoestring
