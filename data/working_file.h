// Internal to data: a file of a build's private folder, written and read at any place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "kernels/base/file.h"

namespace shoestring {

/// Move-only. What fails is Error(io) naming the path.
class WorkingFile {
 public:
  enum class Content : std::uint8_t { none, kept };  ///< of a file that is there
  WorkingFile(std::filesystem::path path, Content content);

  void write(std::int64_t offset, const void* data, std::size_t bytes);
  /// Exactly `bytes` bytes.
  void read(std::int64_t offset, void* to, std::int64_t bytes) const { read_at(file_, path_, offset, to, bytes); }
  std::int64_t bytes() const { return file_bytes(file_, path_); }
  void cut(std::int64_t bytes);
  void sync();
  void close() { file_.close(); }
  /// Closes it too; what cannot be removed stays.
  void remove() noexcept;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FileHandle file_;
};

}  // namespace shoestring
