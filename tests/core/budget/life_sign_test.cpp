#include "core/budget/life_sign.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <sstream>
#include <thread>
#include <vector>

#include "core/budget/ledger.h"
#include "core/budget/ledger_history.h"
#include "kernels/base/file.h"
#include "tests/core/budget/hand_clock.h"
#include "tests/support/scarce_processes.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::HandClock;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

AttemptStart start_of(std::int64_t from_step) {
  AttemptStart start;
  start.run = "test";
  start.from_step = from_step;
  return start;
}

AttemptProgress after(double seconds) {
  AttemptProgress progress;
  progress.step = 1;
  progress.seconds[Category::compute] = seconds;
  return progress;
}

TEST(LifeSign, IsReadBack) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_life_sign(folder.path()));
  const HandClock clock;
  { const LifeSign sign(folder.path(), 12, clock); }
  const auto read = read_life_sign(folder.path());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->attempt, 12);
  EXPECT_NEAR(read->unix_seconds, clock.unix_seconds(), 0.001);
}

TEST(LifeSign, SaysWhyThereIsNone) {
  const TemporaryFolder folder;
  const HandClock clock;
  EXPECT_EQ(LifeSign(folder.path(), 1, clock).trouble(), "");
  std::filesystem::remove(folder.path() / kLifeSignFile);
  std::filesystem::create_directory(folder.path() / kLifeSignFile);
  const LifeSign sign(folder.path(), 1, clock);
  for (const char* part : {"alive: cannot open it for writing: Is a directory", "charged up to its last line"}) {
    EXPECT_NE(sign.trouble().find(part), std::string::npos) << sign.trouble();
  }
}

// The reason is that of the call, not of the files that name the limits.
TEST(LifeSign, SaysThatNoProcessCanBeMade) {
  const TemporaryFolder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  const HandClock clock;
  const int code = testing::with_few_processes(0, [&] {
    const std::string trouble = LifeSign(folder.path(), 1, clock).trouble();
    write_text(folder / "trouble", trouble);
    return 1;
  });
  ASSERT_EQ(code, 1);
  const std::string trouble = read_text(folder / "trouble");
  EXPECT_NE(trouble.find("cannot make the process that writes it: " + system_reason(EAGAIN) + "; look at `ulimit -u`"),
            std::string::npos)
      << trouble;
}

TEST(LifeSign, AnythingElseIsNoSign) {
  const TemporaryFolder folder;
  for (const std::string& text :
       {std::string(), std::string("1 2"), std::string(31, 'x') + "\n", std::string("-1 5") + std::string(28, ' '),
        std::string("1 nan") + std::string(26, ' ') + "\n", std::string(1 << 20, '7')}) {
    write_text(folder.path() / kLifeSignFile, text);
    EXPECT_FALSE(read_life_sign(folder.path())) << text.substr(0, 40);
  }
}

TEST(LifeSign, AKilledAttemptIsChargedUpToIt) {
  const TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(0));
    clock.now += 10;
    ledger.heartbeat(after(12));
    clock.now += 7;  // killed here: no line says so
    const LifeSign sign(folder.path(), ledger.attempt(), clock);
  }
  EXPECT_NEAR(read_ledger(folder.path()).charged_gpu_seconds(), 12 + 7, 0.01);
  clock.now += 100;  // the next attempt begins much later, and writes its own sign
  clock.start = clock.now - 1;
  Ledger next(folder.path(), clock);
  EXPECT_NEAR(next.history().charged_gpu_seconds(), 12 + 7, 0.01);
  next.begin(start_of(0));
  const LifeSign sign(folder.path(), next.attempt(), clock);
  const LedgerHistory history = read_ledger(folder.path());
  ASSERT_EQ(history.attempts.size(), 2u);
  EXPECT_NEAR(history.attempts[0].charged.total(), 12 + 7, 0.01);
  EXPECT_NEAR(history.attempts[0].charged[Category::lost], 12 + 7, 0.01);
}

// What the ledger charges a killed process reaches to the moment at which it was gone, even if its group went with it.
TEST(LifeSign, OutlivesItsProcess) {
  const TemporaryFolder folder;
  const pid_t process = fork();
  if (process == 0) {
    setpgid(0, 0);  // as a shell starts it
    const LifeSign sign(folder.path(), 3, system_clock());
    for (;;) pause();
  }
  const auto sign = [&] { return read_life_sign(folder.path()).value_or(LastSign{}).unix_seconds; };
  const auto wait_for_another = [&] {
    for (const double before = sign(); sign() == before;) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  wait_for_another();  // the process's
  wait_for_another();  // the child's
  const double killed = system_clock().unix_seconds();
  kill(-process, SIGKILL);
  ASSERT_EQ(waitpid(process, nullptr, 0), process);
  const auto last = last_life_sign(folder.path());
  ASSERT_TRUE(last);
  EXPECT_EQ(last->attempt, 3);
  EXPECT_GE(last->unix_seconds, killed);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(sign(), last->unix_seconds) << "the child has not left";
}

// The children of this process by name, as the kernel lists them.
std::vector<pid_t> children_named(const std::string& name) {
  std::vector<pid_t> found;
  std::istringstream all(read_text(fmt::format("/proc/self/task/{}/children", getpid())));
  for (pid_t child = 0; all >> child;) {
    if (read_text(fmt::format("/proc/{}/comm", child)) == name + "\n") found.push_back(child);
  }
  return found;
}

TEST(LifeSign, AChildThatWasStoppedHoldsUpNobody) {
  const TemporaryFolder folder;
  const HandClock clock;
  std::vector<pid_t> children;
  {
    const LifeSign sign(folder.path(), 1, clock);
    while (children.empty()) children = children_named("shoestring-life");
    ASSERT_EQ(children.size(), 1u);
    ASSERT_EQ(kill(children[0], SIGSTOP), 0);
  }
  EXPECT_EQ(kill(children[0], 0), -1) << "it is still there";
}

TEST(LifeSign, ASignFromBeforeTheLastLineChangesNothing) {
  const TemporaryFolder folder;
  HandClock clock;
  {
    Ledger ledger(folder.path(), clock);
    ledger.begin(start_of(0));
    const LifeSign sign(folder.path(), ledger.attempt(), clock);
  }
  const double without = read_ledger_text(read_text(folder.path() / kLedgerFile), false).charged_gpu_seconds();
  HandClock earlier = clock;
  earlier.now -= 50;
  { const LifeSign sign(folder.path(), 1, earlier); }
  EXPECT_EQ(read_ledger(folder.path()).charged_gpu_seconds(), without);
}

}  // namespace
}  // namespace shoestring
