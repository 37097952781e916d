#include "kernels/base/thread.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <fstream>
#include <utility>

#include "kernels/base/control_groups.h"
#include "kernels/base/limits.h"

namespace shoestring {

namespace {

/// A thread that cannot have its stack is refused with the same error as one too many: what memory is left is told
/// where that is too little for two.
std::string stack_limits() {
  struct rlimit limit {};
  const bool known = ::getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  const std::int64_t stack =
      known ? static_cast<std::int64_t>(limit.rlim_cur) : std::int64_t{2} << 20;  // as glibc does
  const MemoryLeft left = memory_left(1);
  if (left.bytes / 2 >= stack) return {};
  return fmt::format("at memory for its stack, {:.3g} MiB by `ulimit -s`, where {:.3g} are left ({}), ",
                     static_cast<double>(stack) / (1 << 20), static_cast<double>(left.bytes) / (1 << 20), left.from);
}

}  // namespace

std::thread make_thread(std::function<void()> body) { return std::thread(std::move(body)); }

std::string thread_limits() {
  std::string user = "unlimited";
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    user = fmt::format("{}", limit.rlim_cur);
  std::string all = "unknown";
  std::ifstream("/proc/sys/kernel/threads-max") >> all;
  const auto group = group_tasks();
  return fmt::format(
      "look {}at `ulimit -u` (here {}), at pids.max of the control group ({}) and at kernel.threads-max (here {}), or "
      "ask for fewer with run.threads or --threads",
      stack_limits(), user,
      group ? fmt::format("here {} in {}, {} of them taken", group->limit, group->file.string(), group->used)
            : "of containers and batch systems; here none",
      all);
}

}  // namespace shoestring
