// shoestring data verify
#include <cstdio>

#include "data/shard_report.h"
#include "kernels/base/check.h"
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
  bool sound = true;
  for (const std::string& path : arguments.positional()) {
    for (const std::string& shard : list_shards(path)) {
      const ShardVerdict verdict = verify_shard(shard);
      fmt::print("{}: {} ({} blocks, {} documents)\n", shard, verdict.sound() ? "sound" : "DAMAGED",
                 verdict.blocks_checked, verdict.documents_checked);
      for (const ShardFault& fault : verdict.faults) fmt::print("  {}\n", fault.text);
      sound = sound && verdict.sound();
    }
  }
  return static_cast<int>(sound ? ExitCode::done : ExitCode::bad_data);
}

}  // namespace shoestring
