#include "kernels/base/control_groups.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/base/workers.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

/// A machine's control groups in a folder: `proc` stands for /proc/self, `root` for /.
class ControlGroups : public ::testing::Test {
 protected:
  void process(const std::string& cgroup, const std::string& mountinfo) {
    write_text(folder_ / "proc/cgroup", cgroup);
    write_text(folder_ / "proc/mountinfo", mountinfo);
  }
  void group(const std::string& file, const std::string& text) { write_text(folder_ / ("root/" + file), text); }
  std::optional<double> quota() const { return cpu_quota(folder_ / "proc", folder_ / "root"); }
  std::optional<GroupRoom> memory() const { return group_memory(folder_ / "proc", folder_ / "root"); }
  std::optional<GroupRoom> tasks() const { return group_tasks(folder_ / "proc", folder_ / "root"); }

  static constexpr const char* kVersion2 =
      "22 1 0:20 / /proc rw - proc proc rw\n"
      "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
  TemporaryFolder folder_;
};

TEST_F(ControlGroups, VersionTwoTakesTheLeastOfAllGroupsAbove) {
  process("0::/job/step/task\n", kVersion2);
  EXPECT_EQ(quota(), std::nullopt);
  group("sys/fs/cgroup/job/step/task/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  group("sys/fs/cgroup/job/step/cpu.max", "350000 100000\n");
  EXPECT_EQ(quota(), 3.5);
  group("sys/fs/cgroup/job/cpu.max", "150000 50000\n");
  EXPECT_EQ(quota(), 3.0);
  group("sys/fs/cgroup/job/step/task/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota(), 0.5);
  group("sys/fs/cgroup/other/cpu.max", "1 100000\n");  // not above this process
  EXPECT_EQ(quota(), 0.5);
}

TEST_F(ControlGroups, AContainerSeesItsOwnGroupAtTheMountPoint) {
  group("sys/fs/cgroup/cpu.max", "200000 100000\n");
  process("0::/\n", kVersion2);
  EXPECT_EQ(quota(), 2.0);
  process("0::/../../system.slice\n", kVersion2);  // entered from outside its namespace
  EXPECT_EQ(quota(), 2.0);
}

TEST_F(ControlGroups, VersionOneBesideVersionTwo) {
  process("12:pids:/a\n5:cpu,cpuacct:/docker/4f0e/inner\n1:name=systemd:/a\n0::/a\n",
          "40 30 0:33 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
          "41 30 0:34 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
          "42 30 0:35 /docker/4f0e /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
          "43 30 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  group("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  group("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  group("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(quota(), 4.0);
  group("sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "250000\n");
  group("sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 2.5);
}

TEST_F(ControlGroups, NothingReadableIsNoQuota) {
  EXPECT_EQ(quota(), std::nullopt);
  process("0::/a\n", "");
  EXPECT_EQ(quota(), std::nullopt);
  process("nonsense\n:\n0:\n::\n", "x\n- - -\n31 24 0:27 / /sys - cgroup2\n");
  EXPECT_EQ(quota(), std::nullopt);
  process("0::/a\n", kVersion2);
  for (const char* text : {"", "max", "-5 100000", "100000", "100000 0", "nan nan", "\xFF\xFE"}) {
    group("sys/fs/cgroup/a/cpu.max", text);
    EXPECT_EQ(quota(), std::nullopt) << text;
  }
}

TEST_F(ControlGroups, TheGroupThatLeavesLeastMemory) {
  process("0::/job/task\n", kVersion2);
  EXPECT_FALSE(memory());
  group("sys/fs/cgroup/job/memory.max", "1000\n");
  EXPECT_FALSE(memory()) << "what is used is not known";
  group("sys/fs/cgroup/job/memory.current", "900\n");
  group("sys/fs/cgroup/job/memory.stat", "anon 500\nfile 400\ninactive_file 250\nactive_file 50\nshmem 100\n");
  group("sys/fs/cgroup/job/task/memory.max", "max\n");
  group("sys/fs/cgroup/job/task/memory.current", "10\n");
  ASSERT_TRUE(memory());
  EXPECT_EQ(memory()->left(), 400) << "copies of files can be dropped";
  EXPECT_EQ(memory()->used, 600);
  EXPECT_EQ(memory()->file, folder_ / "root/sys/fs/cgroup/job/memory.max");
  group("sys/fs/cgroup/job/task/memory.max", "300\n");
  EXPECT_EQ(memory()->left(), 290);
  group("sys/fs/cgroup/job/task/memory.current", "310\n");
  EXPECT_EQ(memory()->left(), 0);
}

// Kubernetes and systemd set it below memory.max, or alone.
TEST_F(ControlGroups, WhereAllocationsAreMadeToWaitIsALimit) {
  process("0::/job/task\n", kVersion2);
  group("sys/fs/cgroup/job/task/memory.current", "100\n");
  group("sys/fs/cgroup/job/task/memory.max", "1000\n");
  group("sys/fs/cgroup/job/task/memory.high", "max\n");
  ASSERT_TRUE(memory());
  EXPECT_EQ(memory()->left(), 900);
  group("sys/fs/cgroup/job/task/memory.high", "800\n");
  EXPECT_EQ(memory()->left(), 700);
  EXPECT_EQ(memory()->file, folder_ / "root/sys/fs/cgroup/job/task/memory.high");
  group("sys/fs/cgroup/job/task/memory.max", "max\n");
  EXPECT_EQ(memory()->left(), 700);
}

TEST_F(ControlGroups, MemoryOfVersionOne) {
  process("4:memory:/a\n8:pids:/b\n0::/\n",
          "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
          "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
  group("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  group("sys/fs/cgroup/memory/memory.usage_in_bytes", "77\n");
  EXPECT_FALSE(memory()) << "the largest number stands for none";
  group("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n");
  group("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "4000\n");
  group("sys/fs/cgroup/memory/a/memory.stat", "inactive_file 9\ntotal_inactive_file 700\ntotal_active_file 300\n");
  ASSERT_TRUE(memory());
  EXPECT_EQ(memory()->left(), 2000);
  EXPECT_FALSE(tasks());
  group("sys/fs/cgroup/pids/b/pids.max", "12\n");
  group("sys/fs/cgroup/pids/b/pids.current", "11\n");
  ASSERT_TRUE(tasks());
  EXPECT_EQ(tasks()->left(), 1);
}

TEST_F(ControlGroups, NonsenseIsNoLimit) {
  process("0::/a\n", kVersion2);
  for (const char* text : {"", "max", "-1", "x", "\xFF"}) {
    group("sys/fs/cgroup/a/memory.max", text);
    group("sys/fs/cgroup/a/memory.current", "1");
    group("sys/fs/cgroup/a/pids.max", text);
    group("sys/fs/cgroup/a/pids.current", "1");
    EXPECT_FALSE(memory()) << text;
    EXPECT_FALSE(tasks()) << text;
  }
}

TEST(UsableCores, TheLeastOfAffinityAndQuotaRoundedDown) {
  const int cores = Workers::usable_cores(std::nullopt);
  EXPECT_GE(cores, 1);
  EXPECT_EQ(Workers::usable_cores(cores + 0.5), cores);
  EXPECT_EQ(Workers::usable_cores(1e9), cores);
  EXPECT_EQ(Workers::usable_cores(0.1), 1);
  EXPECT_EQ(Workers::usable_cores(1.99), 1);
  EXPECT_EQ(Workers::usable_cores(cores - 0.5), std::max(1, cores - 1));
}

}  // namespace
}  // namespace shoestring
