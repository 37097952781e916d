#include "core/training/alike.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <sstream>
#include <system_error>
#include <thread>

#include "core/training/rank_texts.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kDigits = 32;  // of a hash

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// "`source.0 = 1f`, not `source.0 = 2e`": the first line in which `own` is another text than `first`.
std::string difference_text(const std::string& first, const std::string& own) {
  const std::vector<std::string> before = lines_of(first);
  const std::vector<std::string> now = lines_of(own);
  const auto line = [](const std::vector<std::string>& lines, std::size_t at) {
    return at < lines.size() ? fmt::format("`{}`", lines[at]) : std::string("nothing");
  };
  for (std::size_t at = 0; at < std::max(before.size(), now.size()); ++at) {
    if (line(before, at) != line(now, at)) return fmt::format("{}, not {}", line(now, at), line(before, at));
  }
  return "another text";
}

/// Makes the file that only whoever sees the same folder can see.
std::string leave_token(const fs::path& folder) {
  std::random_device random;
  const std::string name = fmt::format("seen.{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
  FileWriter(folder / name).finish();
  return name;
}

bool appears(const fs::path& file, double patience_seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_seconds);
  while (true) {
    std::error_code unknown;
    if (fs::exists(file, unknown)) return true;
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace

void check_alike(Communicator& world, const std::vector<ReadByAll>& things) {
  if (world.size() == 1 || things.empty()) return;
  std::string own;
  for (const ReadByAll& thing : things) own += content_hash(thing.value);
  const auto bytes = static_cast<std::int64_t>(own.size());
  std::string all(own.size() * static_cast<std::size_t>(world.size()), '\0');
  world.all_gather(view_of(all.data(), DType::u8, {bytes * world.size()}), view_of(own.data(), DType::u8, {bytes}));
  for (std::size_t at = 0; at < things.size(); ++at) {
    std::vector<int> ranks;
    for (int rank = 1; rank < world.size(); ++rank) {
      const std::size_t place = at * kDigits;
      if (all.compare(static_cast<std::size_t>(rank) * own.size() + place, kDigits, all, place, kDigits) != 0) {
        ranks.push_back(rank);
      }
    }
    if (ranks.empty()) continue;
    const std::string what = broadcast_text(world, things[at].what, 0);
    const std::string value = broadcast_text(world, things[at].value, 0);
    const std::string difference = broadcast_text(world, difference_text(value, things[at].value), ranks.front());
    const std::string first = place_of(world, 0);
    const std::string other = place_of(world, ranks.front());
    fail(ExitCode::bad_data,
         "{}: {} of {} read something else there than {}; {} has {}. All ranks of a run read the same: name a path "
         "that leads to one place on every host, or copy the same files to each",
         what, ranks_of(ranks), world.size(), first, other, difference);
  }
}

void check_shared_folder(Communicator& world, const fs::path& folder, double patience_seconds) {
  if (world.size() == 1) return;
  std::string token, trouble;
  if (world.rank() == 0) {
    try {
      token = leave_token(folder);
    } catch (const std::exception& exception) {
      trouble = as_error(exception).what();
    }
  }
  token = broadcast_text(world, token, 0);
  if (token.empty()) throw Error(ExitCode::io, broadcast_text(world, trouble, 0));
  const std::int64_t sees = appears(folder / token, patience_seconds) ? 1 : 0;
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather(view_of(all.data(), DType::i64, {world.size()}), view_of(&sees, DType::i64, {1}));
  std::error_code gone;
  if (world.rank() == 0) fs::remove(folder / token, gone);
  std::vector<int> blind;
  for (int rank = 1; rank < world.size(); ++rank) {
    if (all[static_cast<std::size_t>(rank)] == 0) blind.push_back(rank);
  }
  if (blind.empty()) return;
  const std::string place = broadcast_text(world, folder.string(), 0);
  const std::string first = place_of(world, 0);
  const std::string other = place_of(world, blind.front());
  fail(ExitCode::missing_input,
       "{}: {} of {}, first {}, {} not see there what {} does: a relative path, or a disk of a host's own? All ranks "
       "of a run share its folder: set run.directory to a path that leads to one place on every host",
       place, ranks_of(blind), world.size(), other, blind.size() == 1 ? "does" : "do", first);
}

}  // namespace shoestring
