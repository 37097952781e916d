// shoestring export RUN-OR-FOLDER --format bf16|fp32|fp8_block --out DIR
#include <fmt/core.h>

#include <array>
#include <utility>

#include "core/training/export.h"
#include "core/training/model_files.h"
#include "core/training/signals.h"
#include "core/training/work_progress.h"
#include "kernels/base/check.h"
#include "kernels/base/cpu.h"
#include "kernels/base/printable.h"
#include "kernels/base/variant.h"
#include "kernels/base/workers.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/messages.h"
#include "tools/model_folder.h"

namespace shoestring {
namespace {

ExportFormat format_named(const std::string& word) {
  constexpr std::array<std::pair<const char*, ExportFormat>, 3> kFormats = {
      {{"bf16", ExportFormat::bf16}, {"fp32", ExportFormat::fp32}, {"fp8_block", ExportFormat::fp8_block}}};
  for (const auto& [name, format] : kFormats) {
    if (word == name) return format;
  }
  fail(ExitCode::usage, "export: there is no format {}; these are: bf16, fp32, fp8_block", word);
}

}  // namespace

int export_command(const Words& words) {
  const Arguments arguments(
      {.command = "export",
       .positional = "RUN-OR-FOLDER",
       .summary = "Writes a model folder for other readers, from the newest checkpoint of a run or from a folder.",
       .options = {{"out", "DIR", "the folder to write; must not exist"},
                   {"format", "FORMAT", "bf16, fp32, or fp8_block as DeepSeek-V3 is published (bf16)"},
                   {"file-limit", "BYTES", "of one file; several get an index (5Gi)"}},
       .least = 1,
       .most = 1},
      words);
  if (arguments.helped()) return 0;
  const std::string out = arguments.text("out");
  if (out.empty()) fail(ExitCode::usage, "export: say where to, with --out DIR");
  ExportOptions options{.format = format_named(arguments.text("format", "bf16"))};
  options.file_limit_bytes = arguments.integer("file-limit", options.file_limit_bytes, 1, std::int64_t{1} << 50);
  const ImportFolder source(model_folder_of(arguments.positional()[0]));
  allow_reference(!cpu_features().vectors());
  Workers workers(1);
  Stream stream(workers);
  WorkProgress line;
  options.progress = [&](std::int64_t done, std::int64_t all) {
    if (stop_requested() && done < all) {
      fail(ExitCode::preempted, "export: left as asked; nothing is kept of {}, run it again", printable(out));
    }
    line.show({.doing = "writing weights", .done_bytes = done, .all_bytes = all});
  };
  install_signal_handlers("leaving after the tensor under way; Ctrl-C again leaves at once");
  const std::int64_t bytes = export_folder(source, out, options, stream);
  line.wipe();
  fmt::print("{}: {:.1f} MB of weights\n", printable(out), static_cast<double>(bytes) / 1e6);
  const std::string caveat = tokenizer_caveat(source.config().architecture);
  if (!caveat.empty()) say("{}", caveat);
  if (const std::string router = router_caveat(source.config()); !router.empty()) say("{}", router);
  return 0;
}

}  // namespace shoestring
