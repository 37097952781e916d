#include "data/working_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/interrupted.h"

namespace shoestring {

WorkingFile::WorkingFile(std::filesystem::path path, Content content)
    : path_(std::move(path)),
      file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (content == Content::none ? O_TRUNC : 0), 0644)) {
  if (!file_.open()) fail(ExitCode::io, "{}: cannot be opened: {}", path_.string(), system_reason(errno));
}

void WorkingFile::write(std::int64_t offset, const void* data, std::size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(file_.get(), from, bytes, static_cast<off_t>(offset));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) fail(ExitCode::io, "{}: cannot be written: {}", path_.string(), system_reason(errno));
    from += wrote;
    offset += wrote;
    bytes -= static_cast<std::size_t>(wrote);
  }
}

void WorkingFile::cut(std::int64_t bytes) {
  if (not_interrupted([&] { return ::ftruncate(file_.get(), bytes); }) != 0) {
    fail(ExitCode::io, "{}: cannot be cut: {}", path_.string(), system_reason(errno));
  }
}

void WorkingFile::sync() {
  if (sync_descriptor(file_.get()) != 0) {
    fail(ExitCode::io, "{}: cannot be written: {}", path_.string(), system_reason(errno));
  }
}

void WorkingFile::remove() noexcept {
  file_.close();
  ::unlink(path_.c_str());
}

}  // namespace shoestring
