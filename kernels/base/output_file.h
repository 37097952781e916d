// Files that a user names for a command to write: --out, --json and the like. What stands there is the user's.
//
// A regular file is replaced as replace_file does, at the end of links, which stay; a pipe, a character device and what
// standard output or standard error leads to are written into. A folder, a socket and a disk are refused. Files of
// programs' own, in folders of their own, are replace_file's: that follows no link.
#pragma once

#include <filesystem>
#include <string_view>

#include "kernels/base/file.h"

namespace shoestring {

inline constexpr double kOutputPatience = 60;  ///< seconds without a reader, or with one that takes nothing

/// Before any work is done for it: Error(io) where `path` could not be written, with the option's name ("--json");
/// leaves what is there as it is, and waits for no reader of a pipe.
void check_output(const std::filesystem::path& path, std::string_view option);

/// Writes all of it. Throws Error(io), also where a pipe has nobody who reads for `patience_seconds`.
void write_output(const std::filesystem::path& path, std::string_view content,
                  double patience_seconds = kOutputPatience);

/// Whether both names lead to one regular file, or would once it is written.
bool same_file(const std::filesystem::path& one, const std::filesystem::path& other);

/// The same piece by piece, each there as soon as it is written: a regular file is emptied first, and keeps what came
/// when the program ends early.
class OutputStream {
 public:
  explicit OutputStream(std::filesystem::path path, double patience_seconds = kOutputPatience);
  void write(std::string_view piece);
  /// Brings a regular file to disk, and closes.
  void finish();

 private:
  std::filesystem::path path_;
  double patience_;
  FileHandle opened_;
  int descriptor_ = -1;
  bool regular_ = false;
};

}  // namespace shoestring
