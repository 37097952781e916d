// shoestring train RECIPE
#include <cstdio>

#include "core/recipe/installed.h"
#include "core/recipe/parse.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "kernels/base/check.h"
#include "parallel/arrival.h"
#include "tools/arguments.h"
#include "tools/commands.h"

namespace shoestring {

int train_command(const Words& words) {
  install_signal_handlers();  // first: to be asked before the recipe is read is to be asked
  const Arguments arguments(
      {.command = "train",
       .positional = "RECIPE",
       .summary =
           "Begins the run of RECIPE, or goes on with it from its newest sound checkpoint. The run directory is "
           "runs/NAME.\nUnder mpirun one rank per device trains data-parallel. SIGTERM, SIGHUP, SIGUSR1, "
           "SIGUSR2 or Ctrl-C:\nsave and leave with exit code 75, the same command goes on; Ctrl-C twice: leave at "
           "once.\nTo mpirun send SIGUSR2: it returns 75. After SIGTERM, SIGHUP or Ctrl-C Open MPI's mpirun kills the "
           "ranks\nwithin a second, saved or not, and returns 1. Exit code 84: the budget is spent.",
       .options = {{"allow-recipe-change", "", "go on although keys that decide the weights have changed"},
                   {"begin-anew", "",
                    "move what an earlier run of this name left aside, and begin with an empty ledger"},
                   {"warn-command", "COMMAND",
                    "run by the shell at each share of the cap in budget.warn_at (SHOESTRING_RUN, SHOESTRING_SHARE, "
                    "SHOESTRING_SPENT_GPU_HOURS ... in its environment)"},
                   {"from-older", "", "go on from an older checkpoint where the last saved one is not there"}},
       .least = 1,
       .most = 1,
       .recipe_overrides = true},
      words);
  if (arguments.helped()) return 0;
  const std::filesystem::path file = find_recipe(arguments.positional()[0]);
  RecipeReading reading = parse_recipe(file, arguments.overrides());
  const std::unique_ptr<Communicator> world = join_world(stop_requested);
  try {
    Trainer trainer(std::move(reading.recipe), *world, system_clock(),
                    {.recipe_folder = file.parent_path(),
                     .allow_recipe_change = arguments.has("allow-recipe-change"),
                     .begin_anew = arguments.has("begin-anew"),
                     .from_older = arguments.has("from-older"),
                     .warning_command = arguments.text("warn-command"),
                     .out = stdout});
    return static_cast<int>(trainer.run());
  } catch (const std::exception& exception) {
    if (world->size() > 1) {  // the other ranks would wait for this one for ever
      const Error error = as_error(exception);
      world->abort(error.code(), error.what());
    }
    throw;
  }
}

}  // namespace shoestring
