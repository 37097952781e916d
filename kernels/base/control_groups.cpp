#include "kernels/base/control_groups.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {
namespace {

namespace fs = std::filesystem;

/// Where the kernel shows one hierarchy: `shown` is the group that stands at `point`, "/" unless it is a part only.
struct Mount {
  fs::path shown;
  fs::path point;
};

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  return words;
}

bool lists(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (list.substr(0, comma) == word) return true;
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
  }
  return false;
}

/// The mount of the hierarchy that has a controller. A line of mountinfo is: number, parent, device, shown, point,
/// options, fields of their own until "-", type, source, options of the file system.
std::optional<Mount> find_mount(const fs::path& process, std::string_view controller, bool version_2) {
  std::ifstream file(process / "mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = words_of(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || words.end() - dash < 4) continue;
    if (version_2 ? dash[1] == "cgroup2" : dash[1] == "cgroup" && lists(dash[3], controller))
      return {{words[3], words[4]}};
  }
  return std::nullopt;
}

using Look = std::function<void(const fs::path& folder, bool version_2)>;

/// Looks at the folder of the process's group and at all above it, from the mount point down.
void look_down(const Mount& mount, const std::string& group, const fs::path& root, bool version_2, const Look& look) {
  // Seen from a container, a group may lie outside what is mounted; its own is then what stands at the mount point.
  fs::path below = fs::path(group).lexically_relative(mount.shown);
  if (below.empty() || below.begin()->string() == "..") below = ".";
  fs::path folder = root / mount.point.relative_path();
  look(folder, version_2);
  for (const fs::path& part : below) {
    folder /= part;
    if (part != ".") look(folder, version_2);
  }
}

void each_group(const fs::path& process, const fs::path& root, std::string_view controller, const Look& look) {
  std::ifstream file(process / "cgroup");
  for (std::string line; std::getline(file, line);) {  // "number:controllers:group"; 0 and none in version 2
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && !lists(controllers, controller)) continue;
    const std::optional<Mount> mount = find_mount(process, controller, version_2);
    if (mount) look_down(*mount, line.substr(second + 1), root, version_2, look);
  }
}

/// The quota in one group's folder; nothing without one ("max", -1, no such file).
std::optional<double> quota_of(const fs::path& group, bool version_2) {
  double quota = 0;
  double period = 0;
  if (version_2) {
    std::ifstream(group / "cpu.max") >> quota >> period;  // "max 100000" leaves both 0
  } else {
    std::ifstream(group / "cpu.cfs_quota_us") >> quota;
    std::ifstream(group / "cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

std::optional<std::int64_t> whole_of(const fs::path& file) {
  std::int64_t value = 0;
  return std::ifstream(file) >> value && value >= 0 ? std::optional(value) : std::nullopt;
}

constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;  // version 1 writes the largest number of pages in bytes

/// Of memory.stat: bytes of files that can be read again.
std::int64_t file_copies(const fs::path& group, bool version_2) {
  std::int64_t sum = 0;
  std::ifstream file(group / "memory.stat");
  std::string name;
  for (std::int64_t value = 0; file >> name >> value;) {
    const std::string_view whole = version_2 ? "" : "total_";  // version 1: with the groups below
    if (value > 0 && (name == fmt::format("{}inactive_file", whole) || name == fmt::format("{}active_file", whole))) {
      sum += value;
    }
  }
  return sum;
}

void take_least(std::optional<GroupRoom>& least, GroupRoom room) {
  if (!least || room.left() < least->left()) least = std::move(room);
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& process, const fs::path& root) {
  std::optional<double> least;
  each_group(process, root, "cpu", [&](const fs::path& folder, bool version_2) {
    const std::optional<double> quota = quota_of(folder, version_2);
    if (quota && (!least || *quota < *least)) least = quota;
  });
  return least;
}

std::optional<GroupRoom> group_memory(const fs::path& process, const fs::path& root) {
  std::optional<GroupRoom> least;
  each_group(process, root, "memory", [&](const fs::path& folder, bool version_2) {
    const auto used = whole_of(folder / (version_2 ? "memory.current" : "memory.usage_in_bytes"));
    if (!used) return;
    const std::int64_t kept = std::max<std::int64_t>(0, *used - file_copies(folder, version_2));
    const auto take = [&](const fs::path& file) {
      const auto limit = whole_of(file);
      if (limit && *limit < kNoLimit) take_least(least, {*limit, kept, file});
    };
    take(folder / (version_2 ? "memory.max" : "memory.limit_in_bytes"));
    if (version_2) take(folder / "memory.high");
  });
  return least;
}

std::optional<GroupRoom> group_tasks(const fs::path& process, const fs::path& root) {
  std::optional<GroupRoom> least;
  each_group(process, root, "pids", [&](const fs::path& folder, bool) {
    const auto limit = whole_of(folder / "pids.max");
    const auto used = whole_of(folder / "pids.current");
    if (limit && used) take_least(least, {*limit, *used, folder / "pids.max"});
  });
  return least;
}

}  // namespace shoestring
