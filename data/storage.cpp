#include "data/storage.h"

#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <thread>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr double kFirstPause = 0.1;   // seconds; each is twice the one before
constexpr double kLongestPause = 20;  // seconds
constexpr double kAskEvery = 0.1;     // seconds, whether to leave
constexpr double kTellFromPause = 3;  // seconds: with shorter ones only the first is told

// f_type of file systems behind a network, and of those that a program serves (statfs(2)).
constexpr std::array<std::uint32_t, 11> kRemote = {
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF534D42,  // CIFS
    0xFE534D42,  // SMB 2
    0x00C36400,  // Ceph
    0x0BD00BD0,  // Lustre
    0x47504653,  // GPFS
    0x19830326,  // BeeGFS
    0x5346414F,  // AFS
    0x01021997,  // 9P
    0x65735546,  // FUSE
};

/// Whether another try may find it otherwise: the file was opened once, so that its name is right.
bool may_pass(int error) {
  switch (error) {
    case EBADF:
    case EFAULT:
    case EINVAL:
    case EISDIR:
    case EOVERFLOW: return false;
    default: return true;
  }
}

}  // namespace

// A pipe among the shards is opened too, to be refused, and not waited for.
int ShardStorage::open(const std::string& path) const {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

std::int64_t ShardStorage::read(int file, std::int64_t offset, void* to, std::int64_t bytes) const {
  return ::pread(file, to, static_cast<std::size_t>(bytes), offset);
}

void ShardStorage::will_need(int file, std::int64_t offset, std::int64_t bytes) const {
  ::posix_fadvise(file, offset, bytes, POSIX_FADV_WILLNEED);
}

bool ShardStorage::remote(int file) const {
  struct statfs status {};
  if (::fstatfs(file, &status) != 0) return false;
  return std::find(kRemote.begin(), kRemote.end(), static_cast<std::uint32_t>(status.f_type)) != kRemote.end();
}

double ShardStorage::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void ShardStorage::pause(double seconds) const { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

const ShardStorage& system_storage() {
  static const ShardStorage storage;
  return storage;
}

void StorageWait::failed(int error) {
  const std::string reason = system_reason(error);
  if (patience_.seconds <= 0 || !may_pass(error)) {
    fail(ExitCode::io, "{}: cannot be read: {}; look after the storage, then run the same command again", path_,
         reason);
  }
  if (waited_ >= patience_.seconds) {
    fail(ExitCode::preempted,
         "{}: cannot be read: {}; it was tried {} times in {:.3g} s: run the same command again when the storage is "
         "back",
         path_, reason, failures_ + 1, waited_);
  }
  const double left = patience_.left ? patience_.left() : patience_.seconds;
  if (!(left > 0)) {
    fail(
        ExitCode::preempted,
        "{}: cannot be read: {}; after {:.3g} s of waiting for the storage the budget leaves no time for more: run the "
        "same command again when the storage is back",
        path_, reason, waited_);
  }
  const double pause = std::min({kFirstPause * static_cast<double>(std::int64_t{1} << std::min(failures_, 20)),
                                 kLongestPause, patience_.seconds - waited_, left});
  if (patience_.say && (failures_ == 0 || pause >= kTellFromPause)) {
    patience_.say(fmt::format("{}: cannot be read: {}; waiting for the storage since {:.3g} s, for at most {:.3g} s",
                              path_, reason, waited_, patience_.seconds));
  }
  ++failures_;
  pause_for(pause, error);
  waited_ += pause;
}

void StorageWait::pause_for(double seconds, int error) const {
  for (double left = seconds; left > 0; left -= kAskEvery) {
    if (patience_.leave && patience_.leave()) {
      fail(ExitCode::preempted, "{}: cannot be read: {}; left as asked while waiting for the storage", path_,
           system_reason(error));
    }
    storage_.pause(std::min(left, kAskEvery));
  }
}

void StorageWait::done() const {
  if (failures_ > 0 && patience_.say) {
    patience_.say(fmt::format("{}: is read again, {:.3g} s after it first failed", path_, waited_));
  }
}

}  // namespace shoestring
