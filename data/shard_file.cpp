#include "data/shard_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "data/shard_format.h"
#include "kernels/base/check.h"

namespace shoestring {

ShardFile::ShardFile(const std::string& path, ShardIo io, const ShardStorage& storage)
    : path_(path), storage_(storage) {
  file_ = FileHandle(storage.open(path));
  if (!file_.open()) {
    const int reason = errno;
    fail(reason == ENOENT ? ExitCode::missing_input : ExitCode::io, "cannot open shard {}: {}", path,
         system_reason(reason));
  }
  if (::fstat(file_.get(), &as_opened_) != 0) stop("cannot look at");
  if (!S_ISREG(as_opened_.st_mode)) fail(ExitCode::bad_data, "{}: a shard must be a regular file", path);
  if (io == ShardIo::mmap && bytes() > 0 && !storage.remote(file_.get())) {
    void* map = ::mmap(nullptr, bytes(), PROT_READ, MAP_SHARED, file_.get(), 0);
    if (map == MAP_FAILED) stop("cannot map (data.io = pread does without)");
    map_ = static_cast<const unsigned char*>(map);
  }
}

ShardFile::~ShardFile() {
  if (map_ != nullptr) ::munmap(const_cast<unsigned char*>(map_), bytes());
}

void ShardFile::stop(const char* what) const {
  fail(ExitCode::io, "{} shard {}: {}", what, path_, system_reason(errno));
}

void ShardFile::read(std::uint64_t offset, std::uint64_t bytes, void* out, const StoragePatience& patience) const {
  if (map_ != nullptr) {
    std::memcpy(out, map_ + offset, bytes);
    return;
  }
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
