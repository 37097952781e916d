#include "kernels/base/child_process.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/limits.h"
#include "kernels/base/thread.h"

namespace shoestring {
namespace {

constexpr int kLookMilliseconds = 100;
constexpr std::size_t kChunk = std::size_t{64} << 10;
constexpr std::size_t kMostWords = 600;  // of the last ones

/// Forks; the child has all signals blocked from its first instruction on, so none finds this process's handlers.
/// fork() and not _Fork(): `work` allocates, and only the former leaves the allocator's locks free in the child.
class Child {
 public:
  Child() : parent_(::getpid()) {
    ::sigaction(SIGCHLD, nullptr, &before_);
    struct sigaction action {};
    action.sa_handler = SIG_DFL;  // where it is ignored, as some launchers leave it, nobody learns how a child ended
    if (is_ignored()) ::sigaction(SIGCHLD, &action, nullptr);
    sigset_t all;
    sigset_t mask;
    ::sigfillset(&all);
    ::sigdelset(&all, SIGTSTP);  // Ctrl-Z stops both
    ::pthread_sigmask(SIG_BLOCK, &all, &mask);
    process_ = ::fork();
    error_ = errno;
    if (process_ != 0) ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  }
  ~Child() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      wait();
    }
    if (is_ignored()) ::sigaction(SIGCHLD, &before_, nullptr);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t parent() const { return parent_; }
  bool is_this() const { return process_ == 0; }
  bool failed() const { return process_ < 0; }
  int error() const { return error_; }
  /// As waitpid gives it.
  int wait() {
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    return status;
  }

 private:
  bool is_ignored() const { return before_.sa_handler == SIG_IGN; }

  struct sigaction before_ {};
  pid_t parent_;
  pid_t process_ = -1;
  int error_ = 0;
};

struct Answer {
  ExitCode code = ExitCode::done;
  std::string text;
};

Answer answer_of(const std::string& doing, const std::function<std::string()>& work) {
  try {
    return {ExitCode::done, work()};
  } catch (const Error& error) {
    return {error.code(), error.what()};
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    return {error.code(), doing + ": " + error.what()};
  }
}

[[noreturn]] void leave(int to, const Answer& answer) {
  for (std::string_view left = answer.text; !left.empty();) {
    const ssize_t put = ::write(to, left.data(), left.size());
    if (put < 0 && errno != EINTR) ::_exit(1);
    if (put > 0) left.remove_prefix(static_cast<std::size_t>(put));
  }
  ::_exit(static_cast<int>(answer.code));
}

[[noreturn]] void serve(pid_t parent, int to, int words, const std::string& doing,
                        const std::function<std::string()>& work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);        // it was gone before that
  std::atexit([] { ::_exit(1); });              // the first to be run, before all of the parent's
  const int answers = ::fcntl(to, F_DUPFD, 3);  // neither may stand where another is put
  words = ::fcntl(words, F_DUPFD, 3);
  const int nothing = ::memfd_create("nothing", 0);  // is there where /dev is not
  const bool made = answers >= 0 && words >= 0 && nothing >= 0;
  if (!made || ::dup2(nothing, 0) < 0 || ::dup2(answers, 1) < 0 || ::dup2(words, 2) < 0) {
    leave(to, {ExitCode::io,
               fmt::format("{}: cannot make the files of the process that does it: {}", doing, system_reason(errno))});
  }
  close_from(3);
  leave(1, answer_of(doing, work));
}

/// What there is by now; false at the end.
bool read_some(const FileHandle& from, std::string& text, const std::string& doing) {
  pollfd ready{from.get(), POLLIN, 0};
  if (::poll(&ready, 1, kLookMilliseconds) <= 0) return true;
  std::array<char, kChunk> bytes;
  const ssize_t got = ::read(from.get(), bytes.data(), bytes.size());
  if (got < 0 && errno != EINTR) {
    fail(ExitCode::io, "{}: reading what came of it failed: {}", doing, system_reason(errno));
  }
  if (got > 0) text.append(bytes.data(), static_cast<std::size_t>(got));
  return got != 0;
}

/// The end of what the child printed, in one line.
std::string last_words(const FileHandle& words) {
  std::array<char, kMostWords> bytes;
  const off_t end = ::lseek(words.get(), 0, SEEK_END);
  const ssize_t got =
      ::pread(words.get(), bytes.data(), bytes.size(), std::max<off_t>(0, end - static_cast<off_t>(kMostWords)));
  std::string text(bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(0, got)));
  text.erase(text.find_last_not_of(" \n") + 1);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "" : fmt::format(" and said last: {}", text);
}

std::string how_it_ended(int status) {
  if (!WIFSIGNALED(status)) return fmt::format("left with {}", WEXITSTATUS(status));
  const char* const name = ::sigdescr_np(WTERMSIG(status));
  return fmt::format("was ended by signal {} ({})", WTERMSIG(status), name == nullptr ? "unknown" : name);
}

}  // namespace

void close_from(int first) {
  if (::close_range(static_cast<unsigned>(first), ~0U, 0) == 0) return;
  for (int other = first; other < 4096; ++other) ::close(other);  // Linux before 5.9
}

std::string run_in_child(const std::string& doing, const std::function<std::string()>& work,
                         const std::function<void()>& meanwhile) {
  const FileHandle words(::memfd_create("last words", MFD_CLOEXEC));
  std::array<int, 2> ends{-1, -1};
  if (!words.open() || ::pipe2(ends.data(), O_CLOEXEC) != 0) {
    fail(ExitCode::io, "{}: cannot make the files of a process for it: {}", doing, system_reason(errno));
  }
  const FileHandle from(ends[0]);
  FileHandle to(ends[1]);
  Child child;
  if (child.is_this()) serve(child.parent(), to.get(), words.get(), doing, work);
  if (child.failed()) {
    fail(ExitCode::io, "{}: cannot make a process for it: {}; {}; {}", doing, system_reason(child.error()),
         thread_limits(), memory_limits());
  }
  to.close();
  std::string text;
  do {
    meanwhile();
  } while (read_some(from, text, doing));
  const int status = child.wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFEXITED(status) && !text.empty()) throw Error(static_cast<ExitCode>(WEXITSTATUS(status)), text);
  fail(ExitCode::io, "{}: the process that does it {}{}; {}; {}", doing, how_it_ended(status), last_words(words),
       memory_limits(), thread_limits());
}

}  // namespace shoestring
