#include "kernels/base/limits.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string_view>

#include "kernels/base/control_groups.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

double gibibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

void take_least(MemoryLeft& least, std::int64_t bytes, std::string from) {
  if (bytes < least.bytes) least = {bytes, std::move(from)};
}

/// Of /proc/meminfo: what can be had without the machine running dry, swap included; -1: not known.
std::int64_t machine_memory(const fs::path& root) {
  std::ifstream file(root / "proc/meminfo");
  std::int64_t available = -1;
  std::int64_t swap = 0;
  std::string name;
  std::string rest;
  for (std::int64_t kibibytes = 0; file >> name >> kibibytes && std::getline(file, rest);) {
    if (name == "MemAvailable:") available = kibibytes * 1024;
    if (name == "SwapFree:") swap = kibibytes * 1024;
  }
  return available < 0 ? -1 : available + swap;
}

/// Pages of /proc/self/statm: all that is mapped, and data with the stack.
struct Mapped {
  std::int64_t all = 0;
  std::int64_t data = 0;
};
Mapped mapped(const fs::path& process) {
  std::ifstream file(process / "statm");
  std::int64_t all = 0;
  std::int64_t data = 0;
  std::int64_t skipped = 0;
  if (!(file >> all >> skipped >> skipped >> skipped >> skipped >> data)) return {};
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  return {all * page, data * page};
}

void take_own(MemoryLeft& least, int resource, std::string_view option, std::int64_t used) {
  struct rlimit limit {};
  if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 || limit.rlim_cur >= INT64_MAX) return;
  const auto most = static_cast<std::int64_t>(limit.rlim_cur);
  take_least(least, std::max<std::int64_t>(0, most - used),
             fmt::format("`ulimit {}` is {:.3g} GiB, {:.3g} of them taken", option, gibibytes(most), gibibytes(used)));
}

}  // namespace

MemoryLeft memory_left(int sharing, const fs::path& process, const fs::path& root) {
  const std::string shared = sharing > 1 ? fmt::format(", shared by {} ranks", sharing) : "";
  MemoryLeft least;
  if (const std::int64_t machine = machine_memory(root); machine >= 0) {
    take_least(least, machine / sharing, fmt::format("the machine has {:.3g} GiB left{}", gibibytes(machine), shared));
  }
  if (const auto group = group_memory(process, root)) {
    take_least(least, group->left() / sharing,
               fmt::format("the control group's {} is {:.3g} GiB, {:.3g} of them taken{}", group->file.string(),
                           gibibytes(group->limit), gibibytes(group->used), shared));
  }
  const Mapped used = mapped(process);
  take_own(least, RLIMIT_AS, "-v", used.all);
  take_own(least, RLIMIT_DATA, "-d", used.data);
  return least;
}

std::string machine_name() {
  std::string name;  // the kernel's, not the host name: containers of one machine have names of their own
  std::ifstream("/proc/sys/kernel/random/boot_id") >> name;
  return name;
}

std::int64_t raise_open_files(std::int64_t wanted) {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return INT64_MAX;
  const auto most = [](rlim_t value) { return static_cast<std::int64_t>(std::min<rlim_t>(value, INT64_MAX)); };
  if (most(limit.rlim_cur) >= wanted) return most(limit.rlim_cur);
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = std::min(limit.rlim_max, static_cast<rlim_t>(wanted));
  return most(::setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : before);
}

std::string memory_limits() {
  const MemoryLeft left = memory_left(1);
  return "look at `ulimit -v`, at memory.max of the control group (containers, batch systems) and at the machine's "
         "own memory" +
         (left.from.empty() ? "" : " (here " + left.from + ")");
}

}  // namespace shoestring
