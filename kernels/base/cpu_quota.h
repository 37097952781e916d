// How many cores' worth of time the process's control groups allow, whatever the number of cores it may run on: what
// `docker run --cpus`, Kubernetes and batch systems set.
#pragma once

#include <filesystem>
#include <optional>

namespace shoestring {

/// Cores' worth of CPU time per unit of time, the least over the process's group and all above it that can be seen:
/// `cpu.max` of version 2, `cpu.cfs_quota_us` over `cpu.cfs_period_us` of version 1. Nothing when none sets a limit or
/// none can be read. `process` holds the files `cgroup` and `mountinfo` of /proc/self; mount points are looked up
/// below `root`. Never throws: a machine without control groups is no error.
std::optional<double> cpu_quota(const std::filesystem::path& process = "/proc/self",
                                const std::filesystem::path& root = "/");

}  // namespace shoestring
