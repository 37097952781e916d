#include "data/partial_folder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr auto kLook = std::chrono::milliseconds(20);  // between two looks at whether the lock is free

// "shards/" and "shards" are one name.
fs::path without_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

bool is_empty_folder(const fs::path& path) {
  return type_of(path) == fs::file_type::directory && list_directory(path).empty();
}

// All of a folder but its lock, which says whose it is. Returns what could not be removed, and why.
fs::path remove_content(const fs::path& folder, std::error_code& error) {
  std::vector<fs::path> entries;
  fs::directory_iterator next(folder, error);
  for (; !error && next != fs::directory_iterator(); next.increment(error)) entries.push_back(next->path());
  if (error) return folder;
  for (const fs::path& entry : entries) {
    if (entry.filename() == PartialFolder::kLockFile) continue;
    fs::remove_all(entry, error);
    if (error) return entry;
  }
  return {};
}

// Whether `path` still names the open file: its builder may have removed it, or renamed the folder.
bool is_at(const FileHandle& file, const fs::path& path) {
  struct stat opened {
  }, named{};
  return ::fstat(file.get(), &opened) == 0 && ::stat(path.c_str(), &named) == 0 && opened.st_dev == named.st_dev &&
         opened.st_ino == named.st_ino;
}

// What a builder leaves in the finished folder when it is killed right behind its end.
void remove_spent_lock(const fs::path& out) {
  std::error_code other;
  const fs::path lock = out / PartialFolder::kLockFile;
  if (fs::is_regular_file(lock, other) && fs::file_size(lock, other) == 0) fs::remove(lock, other);
}

}  // namespace

fs::path PartialFolder::path_for(const fs::path& out) {
  fs::path folder = without_slash(out);
  return folder += ".partial";
}

PartialFolder::PartialFolder(const fs::path& out, const std::string& resumable, double patience_seconds)
    : out_(without_slash(out)), folder_(path_for(out)) {
  refuse_finished();
  const bool begun = type_of(folder_ / kLockFile) != fs::file_type::not_found || is_empty_folder(folder_);
  if (type_of(folder_) != fs::file_type::not_found && !begun) {
    fail(ExitCode::usage, "{}: is in the way and was not left by a build; move it away", folder_.string());
  }
  do {
    make_directories(folder_);
    lock(patience_seconds);
    refuse_finished();
  } while (!is_at(lock_, folder_ / kLockFile));
  if (!resumable.empty() && type_of(folder_ / resumable) != fs::file_type::not_found) return;
  std::error_code error;
  const fs::path stays = remove_content(folder_, error);
  if (error) fail(ExitCode::io, "{}: cannot be removed: {}", stays.string(), system_reason(error.value()));
}

void PartialFolder::refuse_finished() const {
  if (type_of(out_) == fs::file_type::not_found) return;
  remove_spent_lock(out_);
  fail(ExitCode::usage, "{}: is there already; remove it, or build into another folder", out_.string());
}

void PartialFolder::lock(double patience_seconds) {
  const fs::path path = folder_ / kLockFile;
  lock_ = FileHandle(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock_.get() < 0) fail(ExitCode::io, "cannot write {}: {}", path.string(), system_reason(errno));
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_seconds);
  while (::fcntl(lock_.get(), F_OFD_SETLK, &whole) != 0) {
    if (std::chrono::steady_clock::now() >= until) {
      fail(ExitCode::io, "{}: another build is writing there; wait for its end, or build into another folder",
           folder_.string());
    }
    std::this_thread::sleep_for(kLook);
  }
}

PartialFolder::~PartialFolder() {
  if (kept_) return;
  std::error_code error;
  remove_content(folder_, error);
  if (!error) fs::remove_all(folder_, error);
}

// The lock goes at once, not behind the sync of the parent.
void PartialFolder::commit() {
  if (std::rename(folder_.c_str(), out_.c_str()) != 0) {
    fail_io(out_, "rename " + folder_.filename().string() + " to it");
  }
  kept_ = true;
  remove_spent_lock(out_);
  sync_directory(out_.parent_path());
}

}  // namespace shoestring
