// A file's bytes in memory, whose loss is an error and not a signal that ends the process.
//
// A page that cannot be brought in (the disk fails, another process cuts the file) raises SIGBUS in whoever reads it.
// Here it reads as zeros from then on, and `lost` says so: who has read asks, before it believes what it read.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>

#include "kernels/base/file.h"

namespace shoestring {

/// Move-only. Any number of threads may read and ask at once.
class FileMap {
 public:
  FileMap() = default;
  /// The first `bytes` of `file`, which may be closed then. Throws Error(io) naming `path`. Takes SIGBUS for the
  /// process; one that comes from elsewhere goes to whoever had it before.
  FileMap(const FileHandle& file, const std::filesystem::path& path, std::uint64_t bytes);
  ~FileMap();
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  const unsigned char* data() const { return data_; }  ///< null: of no bytes
  std::uint64_t bytes() const { return bytes_; }
  /// Whether some page could not be brought in so far.
  bool lost() const { return region_ != nullptr && region_->lost.load(std::memory_order_acquire) != kNone; }
  /// The first byte of the page that was lost first; 0 where none was.
  std::uint64_t lost_from() const { return lost() ? region_->lost.load(std::memory_order_acquire) : 0; }

  /// What the handler of the signal knows of a map; of file_map.cpp.
  struct Region {
    std::atomic<std::uintptr_t> begin{0}, end{0};  ///< 0: of no map
    std::atomic<std::uint64_t> lost{kNone};        ///< bytes from `begin` to the first lost page
    Region* next = nullptr;
  };

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  const unsigned char* data_ = nullptr;
  std::uint64_t bytes_ = 0;
  Region* region_ = nullptr;
};

}  // namespace shoestring
