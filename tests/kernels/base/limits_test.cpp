#include "kernels/base/limits.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdint>

#include "kernels/base/thread.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

constexpr std::int64_t kMiB = 1 << 20;

/// Sets a soft limit of this process for as long as it lives.
class SoftLimit {
 public:
  SoftLimit(__rlimit_resource_t resource, rlim_t value) : resource_(resource) {
    getrlimit(resource_, &before_);
    const struct rlimit now { value, before_.rlim_max };
    EXPECT_EQ(setrlimit(resource_, &now), 0);
  }
  ~SoftLimit() { setrlimit(resource_, &before_); }
  SoftLimit(const SoftLimit&) = delete;
  SoftLimit& operator=(const SoftLimit&) = delete;

 private:
  __rlimit_resource_t resource_;
  struct rlimit before_ {};
};

TEST(MemoryLeft, TheLeastOfMachineGroupAndOwnLimitSharedWhereItIsShared) {
  const TemporaryFolder folder;
  const auto left = [&](int sharing) { return memory_left(sharing, folder / "proc", folder / "root"); };
  EXPECT_EQ(left(1).bytes, INT64_MAX) << "nothing can be read";
  write_text(folder / "root/proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:  8192 kB\nSwapFree:  1024 kB\n");
  EXPECT_EQ(left(1).bytes, 9 * kMiB);
  EXPECT_EQ(left(3).bytes, 3 * kMiB);
  EXPECT_NE(left(3).from.find("shared by 3 ranks"), std::string::npos) << left(3).from;
  write_text(folder / "proc/cgroup", "0::/job\n");
  write_text(folder / "proc/mountinfo", "31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  write_text(folder / "root/sys/fs/cgroup/job/memory.max", std::to_string(5 * kMiB));
  write_text(folder / "root/sys/fs/cgroup/job/memory.current", std::to_string(kMiB));
  EXPECT_EQ(left(1).bytes, 4 * kMiB);
  EXPECT_EQ(left(2).bytes, 2 * kMiB);
  EXPECT_NE(left(1).from.find("/sys/fs/cgroup/job/memory.max is 0.00488 GiB, 0.000977 of them taken"),
            std::string::npos)
      << left(1).from;
  // A limit that this process, which is under it as well, does not feel, nearly all of it taken: pages of 4 KiB.
  constexpr std::int64_t kLimit = std::int64_t{1} << 60;
  constexpr std::int64_t kFree = kMiB + kMiB / 2;
  write_text(folder / "proc/statm", fmt::format("1 1 1 1 0 {} 0\n", (kLimit - kFree) / 4096));
  {
    const SoftLimit data(RLIMIT_DATA, static_cast<rlim_t>(kLimit));
    EXPECT_EQ(left(1).bytes, kFree);
    EXPECT_EQ(left(2).bytes, kFree) << "each process has its own";
    EXPECT_NE(left(1).from.find("`ulimit -d`"), std::string::npos) << left(1).from;
  }
}

TEST(MemoryLeft, ThisProcessHasSome) {
  EXPECT_GT(memory_left(1).bytes, 0);
  EXPECT_NE(memory_limits().find("here "), std::string::npos) << memory_limits();
}

TEST(OpenFiles, AreRaisedAsFarAsTheSystemAllows) {
  struct rlimit before {};
  getrlimit(RLIMIT_NOFILE, &before);
  const SoftLimit few(RLIMIT_NOFILE, 64);
  EXPECT_EQ(raise_open_files(10), 64) << "enough as it is";
  EXPECT_EQ(raise_open_files(100), 100);
  if (before.rlim_max < INT64_MAX) {
    EXPECT_EQ(raise_open_files(INT64_MAX), static_cast<std::int64_t>(before.rlim_max));
  }
}

TEST(ThreadLimits, NameEveryPlaceToLookAt) {
  const std::string text = thread_limits();
  for (const char* part : {"`ulimit -u`", "pids.max", "kernel.threads-max", "run.threads"}) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  EXPECT_EQ(text.find("`ulimit -s`"), std::string::npos) << "there is memory for a stack: " << text;
}

TEST(ThreadLimits, NameMemoryWhereAStackHasNone) {
  constexpr rlim_t kMoreThanAnyMachine = rlim_t{1} << 50;
  struct rlimit limit {};
  getrlimit(RLIMIT_STACK, &limit);
  if (limit.rlim_max < kMoreThanAnyMachine) GTEST_SKIP() << "this process may not raise its stack so far";
  const SoftLimit stack(RLIMIT_STACK, kMoreThanAnyMachine);
  const std::string text = thread_limits();
  EXPECT_NE(text.find("memory for its stack, 1.07e+09 MiB by `ulimit -s`, where "), std::string::npos) << text;
  EXPECT_NE(text.find("GiB"), std::string::npos) << "whose limit it is: " << text;
}

}  // namespace
}  // namespace shoestring
