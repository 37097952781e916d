// Files that survive a crash, and files that may be hostile.
//
// A durable file is written under a temporary name, fsynced, renamed and its directory fsynced: a reader sees the old
// content or the new one, never a part. Every failure throws Error(io) with path, operation and the system's reason;
// a missing file throws Error(missing_input). A failed fsync is final: the file is given up, never retried.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

/// An open descriptor; move-only.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int descriptor) : descriptor_(descriptor) {}
  ~FileHandle();
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;

  int get() const { return descriptor_; }
  bool open() const { return descriptor_ >= 0; }
  void close();

 private:
  int descriptor_ = -1;
};

/// 128-bit XXH3 of some bytes as 32 hexadecimal digits; for integrity, not against an attacker.
class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;
  void add(const void* data, std::size_t bytes);
  std::string hex() const;

 private:
  void* state_;
};
std::string content_hash(std::string_view bytes);

/// A regular file, open for reading; links are followed, as stores of models and data are made of them. What has to be
/// what it was is known by its hash.
FileHandle open_for_reading(const std::filesystem::path& path);
std::int64_t file_bytes(const FileHandle& file, const std::filesystem::path& path);

/// The whole file; refuses one larger than `limit_bytes`, and a pointer of Git LFS, with Error(bad_data).
std::string read_file(const std::filesystem::path& path, std::int64_t limit_bytes);
/// Exactly `bytes` bytes at `offset`; a short file is Error(bad_data).
void read_at(const FileHandle& file, const std::filesystem::path& path, std::int64_t offset, void* to,
             std::int64_t bytes);
/// Called between pieces of work that takes long; what it throws ends the work.
using Between = std::function<void()>;
/// Hash of the file's content as it lies on disk.
std::string hash_file(const std::filesystem::path& path, const Between& between = nullptr);

/// Writes one new file: the bytes go to `path` itself (whose folder is still private to the writer) or, through
/// replace_file, to a temporary sibling. Counts and hashes what it is given.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// fsyncs and closes. Without it the file counts as not written.
  void finish();
  std::int64_t bytes() const { return bytes_; }
  std::string hash() const { return hash_.hex(); }

 private:
  std::filesystem::path path_;
  FileHandle file_;
  ContentHash hash_;
  std::int64_t bytes_ = 0;
};

/// Puts `content` under `path`, a file or a link, no node, in one step: sibling, fsync, rename, fsync of the folder.
void replace_file(const std::filesystem::path& path, std::string_view content);
/// Removes what a process that was killed in replace_file(path) left beside it. Only for a file that no other process
/// replaces.
void remove_abandoned(const std::filesystem::path& path);
/// Every entry of the folder, by name. Error(missing_input) where there is no such folder, Error(io) where it cannot be
/// read to its end: nothing is left out in silence.
std::vector<std::filesystem::path> list_directory(const std::filesystem::path& directory);
/// What stands under a name, links followed; file_type::not_found where nothing does, or a link leads nowhere.
/// Error(io) where the system will not say.
std::filesystem::file_type type_of(const std::filesystem::path& path);
void sync_directory(const std::filesystem::path& directory);
/// Creates the folder and its parents; Error(io) with the reason when that is refused, Error(missing_input) where a
/// link on the way leads nowhere.
void make_directories(const std::filesystem::path& directory);
/// Renames within one file system and fsyncs the parent folder.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// What errno says, with the limit to look at where one was met.
std::string system_reason(int error);

/// Throws Error(io or missing_input) "PATH: cannot WHAT: reason" from errno.
[[noreturn]] void fail_io(const std::filesystem::path& path, std::string_view what);

}  // namespace shoestring
