#include "data/shard_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/shard_format.h"
#include "kernels/base/check.h"

namespace shoestring {

namespace {

/// Whether a failure to open lies in the name or in this process: waiting does not mend it.
bool is_ours(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENAMETOOLONG:
    case ENOTDIR:
    case ENXIO:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return true;
    default: return false;
  }
}

}  // namespace

ShardFile::ShardFile(const std::string& path, ShardIo io, const ShardStorage& storage, const StoragePatience& patience)
    : path_(path), storage_(storage) {
  StorageWait wait(storage, patience, path_);
  while (const int error = open()) {
    if (patience.seconds <= 0 || is_ours(error)) {
      fail(error == ENOENT ? ExitCode::missing_input : ExitCode::io, "cannot open shard {}: {}", path,
           system_reason(error));
    }
    wait.failed(error);
  }
  wait.done();
  if (!S_ISREG(as_opened_.st_mode))
    fail(ExitCode::bad_data, "{}: a shard must be a regular file; move what is there", path);
  if (io == ShardIo::mmap && bytes() > 0 && !storage.remote(file_.get())) map_ = FileMap(file_, path, bytes());
}

// What errno says, or 0.
int ShardFile::open() {
  file_ = FileHandle(storage_.open(path_));
  if (!file_.open()) return errno;
  return ::fstat(file_.get(), &as_opened_) == 0 ? 0 : errno;
}

void ShardFile::read(std::uint64_t offset, std::uint64_t bytes, void* out, const StoragePatience& patience) const {
  if (const unsigned char* map = this->map(); map != nullptr) {
    std::memcpy(out, map + offset, bytes);
    if (this->map() != nullptr) return;
  }
  if (map_.lost()) tell_lost_map(patience);
  auto* to = static_cast<unsigned char*>(out);
  StorageWait wait(storage_, patience, path_);
  while (bytes > 0) {
    const std::int64_t got =
        storage_.read(file_.get(), static_cast<std::int64_t>(offset), to, static_cast<std::int64_t>(bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) {
      fail(ExitCode::bad_data, "{}: ends at byte {}, it was cut while open; {}", path_, offset, shard_format::kRemedy);
    }
    if (got < 0) {
      int error = errno;
      do {
        wait.failed(error);
        error = open_anew();
      } while (error != 0);
      continue;
    }
    to += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::uint64_t>(got);
  }
  wait.done();
}

// Reading says what the map could not: that the file was cut, or what is wrong with the disk.
void ShardFile::tell_lost_map(const StoragePatience& patience) const {
  if (told_.exchange(true) || !patience.say) return;
  patience.say(fmt::format("{}: byte {} could not be brought into memory; it is read without a map from here on", path_,
                           map_.lost_from()));
}

// A descriptor of a file that a server has lost (ESTALE) stays lost. The new one takes the number of the old, which
// other threads may be reading by. Returns what errno says, or 0. Throws Error(preempted) when another file stands
// there now: whoever goes on with the run examines it as a whole.
int ShardFile::open_anew() const {
  const FileHandle again(storage_.open(path_));
  if (!again.open()) return errno;
  struct stat now {};
  if (::fstat(again.get(), &now) != 0) return errno;
  const bool same = now.st_size == as_opened_.st_size && now.st_mtim.tv_sec == as_opened_.st_mtim.tv_sec &&
                    now.st_mtim.tv_nsec == as_opened_.st_mtim.tv_nsec;
  if (!same) {
    fail(ExitCode::preempted, "{}: the storage is back with another file of that name; run the same command again",
         path_);
  }
  return ::dup3(again.get(), file_.get(), O_CLOEXEC) < 0 ? errno : 0;
}

}  // namespace shoestring
