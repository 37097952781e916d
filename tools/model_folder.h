// The model folder that a command is given: a run, or a folder itself.
#pragma once

#include <filesystem>

namespace shoestring {

/// As core/training/checkpoint.h has it; what is passed over is said.
std::filesystem::path model_folder_of(const std::filesystem::path& place);

}  // namespace shoestring
