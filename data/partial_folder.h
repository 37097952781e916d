// A folder that appears under its name when it is complete.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/base/file.h"

namespace shoestring {

/// OUT.partial, to be filled and then renamed to OUT; removed again when it is not, unless it is to be kept. What a
/// killed process left there is removed at the start, but where it can be gone on with; a folder that another process
/// is filling, or that none of this kind has begun, is left alone. A process may be killed between any two calls here:
/// the next one of the same OUT goes on, or begins anew.
class PartialFolder {
 public:
  static constexpr double kDyingSeconds = 10;  ///< a killed process may still be writing when it is taken for gone

  /// Left-overs stay where a file of the name `resumable` is among them (empty: never). Throws Error(usage) when `out`
  /// is there already or OUT.partial is somebody else's, Error(io) when it is still in use after `patience_seconds`.
  explicit PartialFolder(const std::filesystem::path& out, const std::string& resumable = "",
                         double patience_seconds = kDyingSeconds);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  /// In it, until it is complete; in OUT for a moment, or where that was the builder's last. It is empty.
  static constexpr const char* kLockFile = "being_built";
  /// Where the folder for `out` is filled.
  static std::filesystem::path path_for(const std::filesystem::path& out);
  const std::filesystem::path& path() const { return folder_; }
  /// It stays where it is, for a process that goes on with it.
  void keep() { kept_ = true; }
  void give_up() { kept_ = false; }
  void commit();

 private:
  void refuse_finished() const;
  void lock(double patience_seconds);

  std::filesystem::path out_;
  std::filesystem::path folder_;
  FileHandle lock_;
  bool kept_ = false;
};

}  // namespace shoestring
