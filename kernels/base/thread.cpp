#include "kernels/base/thread.h"

#include <fmt/core.h>
#include <sys/resource.h>

#include <fstream>
#include <utility>

#include "kernels/base/control_groups.h"

namespace shoestring {

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
      "look at `ulimit -u` (here {}), at pids.max of the control group ({}) and at kernel.threads-max (here {}), or "
      "ask "
      "for fewer with run.threads or --threads",
      user,
      group ? fmt::format("here {} in {}, {} of them taken", group->limit, group->file.string(), group->used)
            : "of containers and batch systems; here none",
      all);
}

}  // namespace shoestring
