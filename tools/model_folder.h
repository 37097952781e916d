// The model folder that a command is given: a run, or a folder itself.
#pragma once

#include <filesystem>

namespace shoestring {

/// `place` where it holds a config.json, else the newest sound checkpoint of the run there. Throws
/// Error(missing_input).
std::filesystem::path model_folder_of(const std::filesystem::path& place);

}  // namespace shoestring
