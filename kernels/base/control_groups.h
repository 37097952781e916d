// What the process's control groups allow, whatever the machine has: what `docker run --cpus --memory --pids-limit`,
// Kubernetes and batch systems set. Version 1 and version 2, the group itself and all above it that can be seen.
//
// `process` holds the files `cgroup` and `mountinfo` of /proc/self; mount points are looked up below `root`. Nothing
// throws: a machine without control groups, or one that does not let them be read, sets no limit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace shoestring {

/// Cores' worth of CPU time per unit of time: `cpu.max` of version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` of
/// version 1; the least of all groups.
std::optional<double> cpu_quota(const std::filesystem::path& process = "/proc/self",
                                const std::filesystem::path& root = "/");

/// The group that leaves least.
struct GroupRoom {
  std::int64_t limit = 0;
  std::int64_t used = 0;
  std::filesystem::path file;  ///< that holds the limit
  std::int64_t left() const { return limit > used ? limit - used : 0; }
};

/// Bytes: `memory.max` and `memory.high` of version 2, `memory.limit_in_bytes` of version 1. Beyond memory.high nothing
/// is ended, but every allocation is made to wait: a run there spends its time without getting on. Copies of files that
/// the kernel drops when memory is short do not count as used.
std::optional<GroupRoom> group_memory(const std::filesystem::path& process = "/proc/self",
                                      const std::filesystem::path& root = "/");

/// Threads and processes: `pids.max`.
std::optional<GroupRoom> group_tasks(const std::filesystem::path& process = "/proc/self",
                                     const std::filesystem::path& root = "/");

}  // namespace shoestring
