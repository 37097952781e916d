// Internal to shards: a file as it lies on the storage, or a copy of it, and with mmap its bytes.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "data/file_map.h"
#include "data/shard.h"
#include "data/storage.h"
#include "kernels/base/file.h"

namespace shoestring {

/// Thread-safe. `storage` must outlive it.
class ShardFile {
 public:
  /// Throws Error(missing_input), Error(io), Error(bad_data) for what is no regular file, and as StorageWait.
  ShardFile(const std::string& path, ShardIo io, const ShardStorage& storage, const StoragePatience& patience);
  ShardFile(const ShardFile&) = delete;
  ShardFile& operator=(const ShardFile&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t bytes() const { return static_cast<std::uint64_t>(as_opened_.st_size); }
  /// Null: it is read. It becomes so for good when a page of the map cannot be brought in, and what came through the
  /// map since it was last asked is void then: ask again behind each use.
  const unsigned char* map() const { return map_.lost() ? nullptr : map_.data(); }
  const ShardStorage& storage() const { return storage_; }

  /// Bytes that lie in the file. Throws Error(bad_data) when it has been cut, and as StorageWait.
  void read(std::uint64_t offset, std::uint64_t bytes, void* out, const StoragePatience& patience) const;
  /// They will be read soon.
  void will_need(std::uint64_t offset, std::uint64_t bytes) const {
    storage_.will_need(file_.get(), static_cast<std::int64_t>(offset), static_cast<std::int64_t>(bytes));
  }

 private:
  int open();
  int open_anew() const;
  void tell_lost_map(const StoragePatience& patience) const;

  std::string path_;
  const ShardStorage& storage_;
  FileHandle file_;
  struct stat as_opened_ {};
  FileMap map_;
  mutable std::atomic<bool> told_ = false;  ///< that the map is lost
};

}  // namespace shoestring
