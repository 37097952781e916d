#include "core/budget/life_sign.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/child_process.h"
#include "kernels/base/file.h"
#include "kernels/base/thread.h"

namespace shoestring {
namespace {

constexpr std::size_t kLength = 32;  // of the file, always
constexpr int kMillisecondsBetweenSigns = 10;
constexpr int kMostWait = 1000;  // milliseconds

// Async-signal-safe, as everything the child does: the process it is a copy of may have had other threads.
bool write_sign(int file, int attempt, const Clock& clock) {
  std::array<char, kLength> line;
  line.fill(' ');
  char* const last = line.data() + kLength - 1;
  char* at = std::to_chars(line.data(), last, attempt).ptr;
  std::to_chars(std::min(at + 1, last), last, clock.unix_seconds(), std::chars_format::fixed, 6);
  *last = '\n';
  return ::pwrite(file, line.data(), line.size(), 0) == static_cast<ssize_t>(line.size());
}

[[noreturn]] void watch(int life_line, int file, int attempt, const Clock& clock) {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  ::setpgid(0, 0);  // a signal to the group of the run is not meant for the one who notes its end
  ::prctl(PR_SET_NAME, "shoestring-life");
  life_line = ::fcntl(life_line, F_DUPFD, 2);  // neither may stand where the other is put
  file = ::fcntl(file, F_DUPFD, 2);
  if (::dup2(life_line, 0) < 0 || ::dup2(file, 1) < 0) ::_exit(1);
  close_from(2);
  pollfd end{.fd = 0, .events = POLLIN, .revents = 0};
  while (::poll(&end, 1, kMillisecondsBetweenSigns) == 0) write_sign(1, attempt, clock);
  write_sign(1, attempt, clock);
  ::_exit(0);
}

// A lock of the open file: the child inherits it, and it ends with the child.
struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

bool is_gone_in_time(pid_t child) {
  for (int waited = 0; waited < kMostWait; ++waited) {
    const pid_t gone = ::waitpid(child, nullptr, WNOHANG);
    if (gone == child || (gone < 0 && errno != EINTR)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

int open_sign(const std::filesystem::path& run_directory) {
  const std::filesystem::path file = run_directory / kLifeSignFile;
  return ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

std::optional<LastSign> read_and_close(int descriptor) {
  std::array<char, kLength> text{};
  const ssize_t got = ::pread(descriptor, text.data(), kLength, 0);
  ::close(descriptor);
  const char* const last = text.data() + kLength - 1;
  if (got != static_cast<ssize_t>(kLength) || *last != '\n') return std::nullopt;
  LastSign sign;
  const auto [end, attempt_error] = std::from_chars(text.data(), last, sign.attempt);
  const char* const seconds = std::find_if(end, last, [](char c) { return c != ' '; });
  const std::errc seconds_error = std::from_chars(seconds, last, sign.unix_seconds).ec;
  if (attempt_error != std::errc() || seconds_error != std::errc()) return std::nullopt;
  if (sign.attempt < 1 || !std::isfinite(sign.unix_seconds)) return std::nullopt;
  return sign;
}

}  // namespace

LifeSign::LifeSign(const std::filesystem::path& run_directory, int attempt, const Clock& clock) {
  const std::filesystem::path name = run_directory / kLifeSignFile;
  try {
    begin(name, attempt, clock);
  } catch (const Error& error) {
    trouble_ = fmt::format("{}; should this process be killed, it is charged up to its last line in the ledger only",
                           error.what());
  }
}

void LifeSign::begin(const std::filesystem::path& name, int attempt, const Clock& clock) {
  const FileHandle file(::open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
  if (!file.open()) fail_io(name, "open it for writing");
  struct flock lock = whole_file(F_WRLCK);
  ::fcntl(file.get(), F_OFD_SETLK, &lock);  // without it readers wait for nobody
  if (!write_sign(file.get(), attempt, clock)) fail_io(name, "write to it");
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail_io(name, "make the pipe to the process that writes it");
  const FileHandle read_end(ends[0]);
  FileHandle life_line(ends[1]);
  child_ = ::_Fork();  // without the handlers that MPI and others hang on fork(): the child uses nothing of theirs
  if (child_ == 0) watch(read_end.get(), file.get(), attempt, clock);
  if (child_ < 0) {
    const int reason = errno;  // before thread_limits() reads files
    fail(ExitCode::io, "{}: cannot make the process that writes it: {}; {}", name.string(), system_reason(reason),
         thread_limits());
  }
  life_line_ = std::move(life_line);
}

// A child that somebody stopped, or whose file system hangs, must not hold up a run that is done.
LifeSign::~LifeSign() {
  life_line_.close();
  if (child_ <= 0 || is_gone_in_time(child_)) return;
  ::kill(child_, SIGKILL);
  is_gone_in_time(child_);
}

std::optional<LastSign> read_life_sign(const std::filesystem::path& run_directory) {
  const int descriptor = open_sign(run_directory);
  return descriptor < 0 ? std::nullopt : read_and_close(descriptor);
}

std::optional<LastSign> last_life_sign(const std::filesystem::path& run_directory) {
  const int descriptor = open_sign(run_directory);
  if (descriptor < 0) return std::nullopt;
  for (int waited = 0; waited < kMostWait; ++waited) {
    struct flock lock = whole_file(F_RDLCK);
    if (::fcntl(descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return read_and_close(descriptor);
}

}  // namespace shoestring
