// A folder that appears under its name when it is complete.
#pragma once

#include <filesystem>

#include "kernels/base/file.h"

namespace shoestring {

/// OUT.partial, to be filled and then renamed to OUT; removed again when it is not. What a killed process left there is
/// removed at the start; a folder that another process is filling, or that none of this kind has begun, is left alone.
class PartialFolder {
 public:
  /// Throws Error(usage) when `out` is there already or OUT.partial is somebody else's, Error(io) when it is in use.
  explicit PartialFolder(const std::filesystem::path& out);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::filesystem::path& path() const { return folder_; }
  void commit();

 private:
  std::filesystem::path out_;
  std::filesystem::path folder_;
  FileHandle lock_;
  bool committed_ = false;
};

}  // namespace shoestring
