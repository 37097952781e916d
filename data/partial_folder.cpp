#include "data/partial_folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// "shards/" and "shards" are one name.
fs::path without_slash(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

}  // namespace

fs::path PartialFolder::path_for(const fs::path& out) {
  fs::path folder = without_slash(out);
  return folder += ".partial";
}

PartialFolder::PartialFolder(const fs::path& out, const std::string& resumable)
    : out_(without_slash(out)), folder_(path_for(out)) {
  if (type_of(out_) != fs::file_type::not_found) {
    fail(ExitCode::usage, "{}: is there already; remove it, or build into another folder", out_.string());
  }
  const fs::path lock_path = folder_ / kLockFile;
  if (type_of(folder_) != fs::file_type::not_found && type_of(lock_path) == fs::file_type::not_found) {
    fail(ExitCode::usage, "{}: is in the way and was not left by a build; move it away", folder_.string());
  }
  make_directories(folder_);
  lock_ = FileHandle(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock_.get() < 0) fail(ExitCode::io, "cannot write {}: {}", lock_path.string(), system_reason(errno));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(lock_.get(), F_OFD_SETLK, &lock) != 0) {
    fail(ExitCode::io, "{}: another build is writing there", folder_.string());
  }
  if (!resumable.empty() && type_of(folder_ / resumable) != fs::file_type::not_found) return;
  for (const fs::path& entry : list_directory(folder_)) {
    std::error_code error;
    if (entry != lock_path) fs::remove_all(entry, error);
    if (error) fail(ExitCode::io, "{}: cannot be removed: {}", entry.string(), system_reason(error.value()));
  }
}

PartialFolder::~PartialFolder() {
  std::error_code ignored;
  if (!kept_) fs::remove_all(folder_, ignored);
}

void PartialFolder::commit() {
  rename_durably(folder_, out_);
  kept_ = true;
  std::error_code ignored;
  fs::remove(out_ / kLockFile, ignored);
}

}  // namespace shoestring
