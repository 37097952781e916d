#include "kernels/base/append.h"

#include <unistd.h>

#include <cerrno>

#include "kernels/base/file.h"
#include "kernels/base/interrupted.h"

namespace shoestring {

void append(int descriptor, const std::filesystem::path& path, std::string_view bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(descriptor, bytes.data() + done, bytes.size() - done);
    if (put > 0) {
      done += static_cast<std::size_t>(put);
      continue;
    }
    if (put < 0 && errno == EINTR) continue;
    const int error = put == 0 ? ENOSPC : errno;
    const off_t end = ::lseek(descriptor, 0, SEEK_END);
    const auto part = static_cast<off_t>(done);
    if (done > 0 && end >= part && not_interrupted([&] { return ::ftruncate(descriptor, end - part); }) != 0)
      fail_io(path, "repair it");
    errno = error;
    fail_io(path, "write to it");
  }
}

}  // namespace shoestring
