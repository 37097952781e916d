// Files that options of a command name, looked at before the command does any work for them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace shoestring {

/// A file, and the word of the command line that names it: "--out", "--suite", "SHARD".
struct NamedFile {
  std::string option;
  std::filesystem::path path;
};

/// Throws Error(usage) where two of `outputs`, or one of them and one of `inputs`, are one regular file, and Error(io)
/// for an output that cannot be written (check_output).
void check_outputs(const std::string& command, const std::vector<NamedFile>& outputs,
                   const std::vector<NamedFile>& inputs = {});

}  // namespace shoestring
