#include "kernels/base/output_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/interrupted.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr int kMostLinks = 40;  // as many as the system follows

/// Where a name leads.
struct Target {
  fs::path path;             ///< of a regular file at the end of all links
  bool regular = false;      ///< such a file, or nothing yet
  bool there = false;        ///< something
  int standard_stream = -1;  ///< 1 or 2, where it is what those are
  struct stat status = {};
};

/// The standard stream that writes to what `status` tells of; -1: none.
int standard_stream_of(const struct stat& status) {
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat own {};
    const int flags = ::fcntl(stream, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || ::fstat(stream, &own) != 0) continue;
    if (own.st_dev == status.st_dev && own.st_ino == status.st_ino) return stream;
  }
  return -1;
}

Target target_of(const fs::path& name) {
  Target target{.path = name};
  if (::stat(name.c_str(), &target.status) != 0) {
    if (errno != ENOENT) fail(ExitCode::io, "{}: cannot be looked at: {}", name.string(), system_reason(errno));
    target.regular = true;
    std::error_code none;
    for (int links = 0; links < kMostLinks && fs::is_symlink(target.path, none); ++links) {
      target.path = target.path.parent_path() / fs::read_symlink(target.path, none);  // an absolute one stands alone
    }
    return target;
  }
  target.there = true;
  target.standard_stream = standard_stream_of(target.status);
  target.regular = S_ISREG(target.status.st_mode);
  std::error_code refused;
  if (target.regular && fs::is_symlink(name, refused)) target.path = fs::canonical(name, refused);
  if (refused) fail(ExitCode::io, "{}: cannot be followed: {}", name.string(), system_reason(refused.value()));
  return target;
}

void refuse_what_is_no_file(const fs::path& path, const Target& target, std::string_view option) {
  const mode_t mode = target.status.st_mode;
  const char* const kind = !target.there    ? nullptr
                           : S_ISDIR(mode)  ? "a folder; name a file in it"
                           : S_ISSOCK(mode) ? "a socket; name a file or a pipe"
                           : S_ISBLK(mode)  ? "a disk; name a file on it"
                                            : nullptr;
  if (kind == nullptr || target.standard_stream >= 0) return;
  fail(ExitCode::io, "{}: is {}{}{}", path.string(), kind, option.empty() ? "" : " for ", option);
}

/// While it lives, writing to a pipe without a reader is an error (EPIPE) and no signal.
class NoPipeSignal {
 public:
  NoPipeSignal() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~NoPipeSignal() {
    const timespec at_once{};
    while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &at_once) == SIGPIPE) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoPipeSignal(const NoPipeSignal&) = delete;
  NoPipeSignal& operator=(const NoPipeSignal&) = delete;

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

[[noreturn]] void fail_unread(const fs::path& path, double seconds) {
  fail(ExitCode::io, "{}: nobody has read from this pipe for {:.3g} s; start its reader first", path.string(), seconds);
}

/// A pipe opens when somebody reads from it. A signal ends the wait as it ends the program.
FileHandle open_node(const fs::path& path, bool pipe, double patience) {
  const Clock::time_point begin = Clock::now();
  while (true) {
    FileHandle node(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (node.open()) return node;
    if (errno != EINTR && !(pipe && errno == ENXIO)) fail_io(path, "open it for writing");
    if (seconds_since(begin) >= patience) fail_unread(path, patience);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void write_all(int descriptor, const fs::path& path, std::string_view bytes, double patience) {
  const NoPipeSignal guard;
  Clock::time_point moved = Clock::now();
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor, bytes.data(), bytes.size());
    if (put >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(put));
      moved = Clock::now();
    } else if (errno == EAGAIN) {
      if (seconds_since(moved) >= patience) fail_unread(path, patience);
      pollfd room{.fd = descriptor, .events = POLLOUT, .revents = 0};
      ::poll(&room, 1, 100);
    } else if (errno == EPIPE) {
      fail(ExitCode::io, "{}: its reader is gone, with {} bytes to come; keep it until all is read", path.string(),
           bytes.size());
    } else if (errno != EINTR) {
      fail_io(path, "write to it");
    }
  }
}

}  // namespace

void check_output(const fs::path& path, std::string_view option) {
  const Target target = target_of(path);
  refuse_what_is_no_file(path, target, option);
  if (target.standard_stream >= 0) return;
  if (!target.regular) {
    if (::access(path.c_str(), W_OK) != 0) fail_io(path, "write to it");
    return;
  }
  fs::path beside = target.path;
  beside += fmt::format(".tmp{}", ::getpid());
  { const FileWriter opened(beside); }
  fs::remove(beside);
}

void write_output(const fs::path& path, std::string_view content, double patience_seconds) {
  const Target target = target_of(path);
  if (target.regular && target.standard_stream < 0) return replace_file(target.path, content);
  OutputStream stream(path, patience_seconds);
  stream.write(content);
  stream.finish();
}

bool same_file(const fs::path& one, const fs::path& other) {
  const Target first = target_of(one);
  const Target second = target_of(other);
  if (!first.regular || !second.regular || first.there != second.there) return false;
  if (first.there) return first.status.st_dev == second.status.st_dev && first.status.st_ino == second.status.st_ino;
  return fs::weakly_canonical(fs::absolute(first.path)) == fs::weakly_canonical(fs::absolute(second.path));
}

OutputStream::OutputStream(fs::path path, double patience_seconds)
    : path_(std::move(path)), patience_(patience_seconds) {
  const Target target = target_of(path_);
  refuse_what_is_no_file(path_, target, {});
  if (target.standard_stream >= 0) {
    if (target.standard_stream == STDOUT_FILENO) std::fflush(stdout);  // what was printed before comes before
    descriptor_ = target.standard_stream;
    return;
  }
  regular_ = target.regular;
  opened_ = regular_ ? FileHandle(::open(target.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644))
                     : open_node(path_, S_ISFIFO(target.status.st_mode), patience_);
  if (!opened_.open()) fail(ExitCode::io, "{}: cannot be opened for writing: {}", path_.string(), system_reason(errno));
  descriptor_ = opened_.get();
}

void OutputStream::write(std::string_view piece) { write_all(descriptor_, path_, piece, patience_); }

void OutputStream::finish() {
  if (regular_ && sync_descriptor(descriptor_) != 0) fail_io(path_, "bring it to disk (fsync)");
  opened_.close();
  descriptor_ = -1;
}

}  // namespace shoestring
