// Whether a file that may be absent is there.
#pragma once

#include <filesystem>

namespace shoestring {

/// False where nothing stands under the name. A link that leads nowhere is not nothing: Error(missing_input) names it
/// and what it led to. Error(io) where the system will not say.
bool is_present(const std::filesystem::path& path);

}  // namespace shoestring
