#include "kernels/base/child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// Seen by this process and by its copies.
struct Shared {
  std::atomic<int> worker{0};   // process that works
  std::atomic<int> handled{0};  // signals, by the handler of this process
  std::atomic<int> exits{0};    // exit handlers that ran in copies
};

Shared& shared() {
  static Shared* const page = [] {
    void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (memory) Shared;
  }();
  return *page;
}

void nothing() {}

std::string never_ends() {
  shared().worker = ::getpid();
  for (;;) ::pause();
}

Error error_of(const std::function<std::string()>& work, const std::function<void()>& meanwhile = nothing) {
  try {
    run_in_child("counting", work, meanwhile);
  } catch (const Error& error) {
    return error;
  }
  return {ExitCode::done, "no error"};
}

void expect_parts(const Error& error, std::initializer_list<const char*> parts) {
  for (const char* part : parts) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
}

/// So many files more can be opened, while it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(int more) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int first = ::dup(0);
    ::close(first);
    for (int taken = first; taken < first + more; ++taken) EXPECT_LT(::fcntl(taken, F_GETFD), 0) << "a hole";
    const struct rlimit now { static_cast<rlim_t>(first + more), before_.rlim_max };
    setrlimit(RLIMIT_NOFILE, &now);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  FewDescriptors(const FewDescriptors&) = delete;
  FewDescriptors& operator=(const FewDescriptors&) = delete;

 private:
  struct rlimit before_ {};
};

TEST(ChildProcess, ThatCanOpenNoFileSaysSo) {
  const FewDescriptors few(3);  // those of the parent
  const Error error = error_of([] { return std::string(); });
  EXPECT_EQ(error.code(), ExitCode::io);
  expect_parts(error, {"counting: cannot make the files of the process that does it: Too many open files; raise "
                       "`ulimit -n`"});
}

TEST(ChildProcess, GivesItsAnswerAndChangesNothing) {
  int changed = 0;
  int asked = 0;
  const std::string text(300'000, 'x');  // more than a pipe holds
  const std::string answer = run_in_child(
      "counting", [&] { return changed = 1, text; }, [&] { ++asked; });
  EXPECT_EQ(answer, text);
  EXPECT_EQ(changed, 0);
  EXPECT_GE(asked, 1);
  EXPECT_EQ(run_in_child(
                "counting", [] { return std::string(); }, nothing),
            "");
}

TEST(ChildProcess, ItsErrorsComeThrough) {
  const Error own = error_of([]() -> std::string { fail(ExitCode::bad_data, "a.txt: line 3 is none; give another"); });
  EXPECT_EQ(own.code(), ExitCode::bad_data);
  EXPECT_STREQ(own.what(), "a.txt: line 3 is none; give another");
  const Error memory = error_of([]() -> std::string { throw std::bad_alloc(); });
  EXPECT_EQ(memory.code(), ExitCode::io);
  expect_parts(memory, {"counting: out of memory", "ulimit -v"});
}

// What a library's own thread throws ends the process.
TEST(ChildProcess, ItsDeathIsAnErrorWithItsLastWords) {
  const Error aborted = error_of([]() -> std::string {
    std::thread([] { throw std::bad_alloc(); }).join();
    return "";
  });
  EXPECT_EQ(aborted.code(), ExitCode::io);
  expect_parts(aborted, {"counting: the process", "signal 6", "std::bad_alloc", "ulimit -v", "ulimit -u"});
  const Error killed = error_of([]() -> std::string {
    std::fputs("halfway\n", stderr);
    ::raise(SIGKILL);
    return "";
  });
  EXPECT_EQ(killed.code(), ExitCode::io);
  expect_parts(killed, {"signal 9 (Killed)", "said last: halfway;"});
  const Error cut = error_of([]() -> std::string {
    if (::write(1, "half an answer", 14) == 14) ::raise(SIGKILL);
    return "";
  });
  EXPECT_EQ(cut.code(), ExitCode::io);
}

// Some launchers leave it so; how a child ended would be lost.
TEST(ChildProcess, EndsAsItDoesWhereItsSignalIsIgnored) {
  ::signal(SIGCHLD, SIG_IGN);
  EXPECT_EQ(run_in_child(
                "counting", [] { return std::string("three"); }, nothing),
            "three");
  EXPECT_EQ(error_of([]() -> std::string { fail(ExitCode::bad_data, "a.txt: is none; give another"); }).code(),
            ExitCode::bad_data);
  EXPECT_EQ(::signal(SIGCHLD, SIG_DFL), SIG_IGN) << "left as it was";
}

TEST(ChildProcess, RunsNoHandlersOfItsParent) {
  ::signal(SIGTERM, [](int) { ++shared().handled; });
  std::atexit([] { ++shared().exits; });
  const std::string answer = run_in_child(
      "counting",
      [] {
        ::kill(::getpid(), SIGTERM);
        return std::string("still here");
      },
      nothing);
  ::signal(SIGTERM, SIG_DFL);
  EXPECT_EQ(answer, "still here");
  EXPECT_EQ(shared().handled, 0);
  const Error left = error_of([]() -> std::string { std::exit(3); });  // as libraries do on fatal errors
  EXPECT_EQ(left.code(), ExitCode::io);
  expect_parts(left, {"counting: the process that does it left with"});
  EXPECT_EQ(shared().exits, 0);
}

TEST(ChildProcess, IsGoneWhenWhoWaitsForItLeaves) {
  shared().worker = 0;
  const Error error = error_of(never_ends, [] {
    if (shared().worker != 0) fail(ExitCode::preempted, "the work: left as asked; run it again");
  });
  EXPECT_EQ(error.code(), ExitCode::preempted);
  EXPECT_EQ(::kill(shared().worker, 0), -1);
}

TEST(ChildProcess, EndsWithItsParent) {
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // the copy's end is told to this process then
  shared().worker = 0;
  const pid_t parent = ::fork();
  if (parent == 0) {
    run_in_child("counting", never_ends, nothing);
    ::_exit(1);
  }
  while (shared().worker == 0) std::this_thread::yield();
  ::kill(parent, SIGKILL);
  ASSERT_EQ(::waitpid(parent, nullptr, 0), parent);
  pid_t gone = 0;
  for (int tries = 0; tries < 1000 && gone == 0; ++tries) {
    gone = ::waitpid(shared().worker, nullptr, WNOHANG);
    if (gone == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(gone, shared().worker);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(ChildProcess, ThatCannotBeMadeNamesTheLimits) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const rlimit few{1, 1};
    if (::setrlimit(RLIMIT_NPROC, &few) != 0) ::_exit(1);
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(2);  // root has no such limit
    const Error error = error_of([] { return std::string(); });
    const bool named = std::string(error.what()).find("ulimit -u") != std::string::npos;
    ::_exit(error.code() == ExitCode::io && named ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace shoestring
