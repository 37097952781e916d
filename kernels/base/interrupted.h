// Calls that a signal may interrupt before they have done anything: a handler that is installed with SA_RESTART is not
// enough for fsync, ftruncate and fallocate (network and user-space file systems, tmpfs).
#pragma once

#include <unistd.h>

#include <cerrno>

namespace shoestring {

/// Calls again for as long as `call()` says that it was interrupted (negative, EINTR); its last result, and its errno.
template <class Call>
auto not_interrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// fsync. Nothing was written, and nothing lost, where it was interrupted: that is no failure of the disk.
inline int sync_descriptor(int descriptor) {
  return not_interrupted([descriptor] { return ::fsync(descriptor); });
}

}  // namespace shoestring
