// shoestring data verify
#include <cstdio>
#include <filesystem>

#include "core/training/work_progress.h"
#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "kernels/base/printable.h"
#include "tools/arguments.h"
#include "tools/commands.h"

namespace shoestring {

int data_verify_command(const Words& words) {
  const Arguments arguments(
      {.command = "data verify",
       .positional = "SHARD...",
       .summary = "Reads every block of a shard, or of each shard of a folder, against its checksum "
                  "and vocabulary.",
       .options = {},
       .least = 1,
       .most = 1000},
      words);
  if (arguments.helped()) return 0;
  std::vector<std::string> shards;
  for (const std::string& path : arguments.positional()) {
    for (std::string& shard : list_shards(path)) shards.push_back(std::move(shard));
  }
  Progress progress{.doing = "reading shards"};
  const auto bytes_of = [](const std::string& shard) {
    std::error_code gone;  // opening it will say so
    const std::uintmax_t bytes = std::filesystem::file_size(shard, gone);
    return gone ? std::int64_t{0} : static_cast<std::int64_t>(bytes);
  };
  for (const std::string& shard : shards) progress.all_bytes += bytes_of(shard);
  WorkProgress line;
  bool sound = true;
  for (const std::string& shard : shards) {
    const std::int64_t before = progress.done_bytes;
    const ShardVerdict verdict = verify_shard(shard, [&](std::int64_t bytes) {
      progress.done_bytes = before + bytes;
      line.show(progress);
    });
    line.wipe();
    fmt::print("{}: {} ({} blocks, {} documents)\n", printable(shard), verdict.sound() ? "sound" : "DAMAGED",
               verdict.blocks_checked, verdict.documents_checked);
    for (const ShardFault& fault : verdict.faults) fmt::print("  {}\n", printable(fault.text));
    sound = sound && verdict.sound();
    progress.done_bytes = before + bytes_of(shard);
  }
  return static_cast<int>(sound ? ExitCode::done : ExitCode::bad_data);
}

}  // namespace shoestring
