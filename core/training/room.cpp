#include "core/training/room.h"

#include <sys/statvfs.h>

#include <limits>
#include <vector>

#include "data/shard_report.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int64_t kBesideCheckpoints = std::int64_t{16} << 20;  // ledger, metrics, report, tokenizer

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

void check_inputs(const DataSpec& data) {
  for (const std::vector<SourceSpec>* sources : {&data.train, &data.validation}) {
    for (const SourceSpec& source : *sources) list_shards(source.path);
  }
}

std::int64_t free_bytes(const std::filesystem::path& directory) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  struct statvfs system {};
  if (statvfs(directory.c_str(), &system) != 0) return kMost;
  const double bytes = static_cast<double>(system.f_bavail) * static_cast<double>(system.f_frsize);
  return bytes < static_cast<double>(kMost) ? static_cast<std::int64_t>(bytes) : kMost;
}

void check_room(const std::filesystem::path& directory, std::int64_t free, std::int64_t checkpoint_bytes,
                bool has_checkpoint) {
  const std::int64_t needed = (has_checkpoint ? 1 : 2) * checkpoint_bytes + kBesideCheckpoints;
  if (free >= needed) return;
  fail(ExitCode::io,
       "{}: {:.1f} MiB are free, {:.1f} are needed: {} of {:.1f} and what stands beside; make room, or set "
       "run.directory to where there is some",
       directory.string(), mebibytes(free), mebibytes(needed),
       has_checkpoint ? "another checkpoint" : "two checkpoints", mebibytes(checkpoint_bytes));
}

}  // namespace shoestring
