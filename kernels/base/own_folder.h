// A folder that one process fills, under a name of its own: what it leaves when it is killed, the next one removes.
#pragma once

#include <filesystem>

#include "kernels/base/file.h"

namespace shoestring {

class OwnFolder {
 public:
  /// Makes the folder STEM and the number of this process (and _1, _2 ... where that is taken), with those above it.
  /// Before, folders of that kind are removed whose processes are gone: a mark in each is locked for as long as its
  /// process lives. Where that cannot be told (no mark, a file system without locks, rights), they stay. Throws
  /// Error(io) where it cannot be made.
  explicit OwnFolder(const std::filesystem::path& stem);
  /// Removes it, unless it has become another.
  ~OwnFolder();
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Brings it to disk and renames it to `out`, without the mark; Error(io) where that fails.
  void become(const std::filesystem::path& out);

 private:
  void mark();

  std::filesystem::path path_;
  FileHandle mark_;
};

}  // namespace shoestring
