// shoestring inspect RUN-OR-FOLDER
#include <fmt/core.h>

#include "core/model/accounting.h"
#include "core/recipe/units.h"
#include "core/training/readers.h"
#include "kernels/base/printable.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/model_folder.h"

namespace shoestring {

int inspect_command(const Words& words) {
  const Arguments arguments({.command = "inspect",
                             .positional = "RUN-OR-FOLDER",
                             .summary = "Says what model a folder holds, and what each reader makes of it and why.",
                             .options = {},
                             .least = 1,
                             .most = 1},
                            words);
  if (arguments.helped()) return 0;
  const ImportFolder folder(model_folder_of(arguments.positional()[0]));
  const ModelConfig& model = folder.config();
  fmt::print("{}: {}, {} layers of {}, vocabulary {}, {} parameters\n", printable(folder.path().string()),
             name(model.architecture), model.layers, model.hidden, model.vocabulary,
             rounded(static_cast<double>(count_parameters(model).with_further())));
  for (const ReaderVerdict& verdict : reader_verdicts(folder)) {
    fmt::print("{:<18} {}\n", verdict.reader, words_of(verdict.reading));
    for (const std::string& reason : verdict.reasons) fmt::print("  {}\n", printable(reason));
  }
  fmt::print(
      "what the weights hold was not looked at: NaN and infinity are refused when a reader of ours takes them\n");
  return 0;
}

}  // namespace shoestring
