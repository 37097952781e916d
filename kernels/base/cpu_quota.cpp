#include "kernels/base/cpu_quota.h"

#include <algorithm>
#include <fstream>
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

/// The mount of the hierarchy that limits CPU time. A line of mountinfo is: number, parent, device, shown, point,
/// options, fields of their own until "-", type, source, options of the file system.
std::optional<Mount> find_mount(const fs::path& process, bool version_2) {
  std::ifstream file(process / "mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = words_of(line);
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || words.end() - dash < 4) continue;
    if (version_2 ? dash[1] == "cgroup2" : dash[1] == "cgroup" && lists(dash[3], "cpu")) return {{words[3], words[4]}};
  }
  return std::nullopt;
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

/// The least quota from the folder of the process's group up to the mount point.
std::optional<double> least_quota(const Mount& mount, const std::string& group, const fs::path& root, bool version_2) {
  const fs::path top = root / mount.point.relative_path();
  // Seen from a container, a group may lie outside what is mounted; its own is then what stands at the mount point.
  fs::path below = fs::path(group).lexically_relative(mount.shown);
  if (below.empty() || below.begin()->string() == "..") below = ".";
  std::optional<double> least;
  const auto take = [&](const fs::path& folder) {
    const std::optional<double> quota = quota_of(folder, version_2);
    if (quota && (!least || *quota < *least)) least = quota;
  };
  fs::path folder = top;
  take(folder);
  for (const fs::path& part : below) {
    folder /= part;
    if (part != ".") take(folder);
  }
  return least;
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& process, const fs::path& root) {
  std::optional<double> least;
  std::ifstream file(process / "cgroup");
  for (std::string line; std::getline(file, line);) {  // "number:controllers:group"; 0 and none in version 2
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && !lists(controllers, "cpu")) continue;
    const std::optional<Mount> mount = find_mount(process, version_2);
    if (!mount) continue;
    const std::optional<double> quota = least_quota(*mount, line.substr(second + 1), root, version_2);
    if (quota && (!least || *quota < *least)) least = quota;
  }
  return least;
}

}  // namespace shoestring
