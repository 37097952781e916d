// shoestring verify RECIPE [--steps N] [--ranks N]
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "core/recipe/installed.h"
#include "core/recipe/names.h"
#include "core/recipe/parse.h"
#include "core/training/launch.h"
#include "core/training/signals.h"
#include "core/training/verify.h"
#include "kernels/base/check.h"
#include "parallel/arrival.h"
#include "tools/arguments.h"
#include "tools/commands.h"

namespace shoestring {

namespace {

void print(const VerifiedLayout& layout) {
  fmt::print("{:<9} {:<5} {:<7} {:<12} {:<6} {}\n", layout.shape.pipeline, layout.shape.data, layout.shape.expert,
             layout.shape.pipeline == 1 ? std::string_view("-") : word(layout.schedule),
             layout.shares_state ? "shared" : "whole",
             layout.difference.empty() ? "equal bits" : "DIFFERS, first in " + layout.difference);
  std::fflush(stdout);
}

/// The same code on every rank.
int verify(const Recipe& recipe, int steps, int ranks, Communicator& world) {
  const bool leads = world.rank() == 0;
  if (world.size() > 1) ranks = std::min(ranks, world.size());
  if (leads) {
    fmt::print("{}\n", small_twin_text(recipe));
    fmt::print("{:<9} {:<5} {:<7} {:<12} {:<6} against one process, after {} steps\n", "pipeline", "data", "expert",
               "schedule", "state", steps);
  }
  const std::vector<VerifiedLayout> all = verify_layouts(recipe, steps, layouts_to_verify(recipe, ranks), world, print);
  const auto equal =
      std::count_if(all.begin(), all.end(), [](const VerifiedLayout& layout) { return layout.difference.empty(); });
  double code = static_cast<std::size_t>(equal) == all.size() ? 0 : static_cast<int>(ExitCode::replica_mismatch);
  world.broadcast(view_of(&code, DType::f64, {1}), 0);
  if (leads) fmt::print("{} layouts, {} equal\n", all.size(), equal);
  return static_cast<int>(code);
}

}  // namespace

int verify_command(const Words& words) {
  const Usage usage{.command = "verify",
                    .positional = "RECIPE",
                    .summary =
                        "Trains a small model of the recipe's family, in its precision, for a few steps as one\n"
                        "process and under a matrix of layouts and schedules, and compares losses, gradients,\n"
                        "weights and optimizer state to the bit. Ranks are threads, or under mpirun its processes.",
                    .options = {{"steps", "N", "steps under each layout; default 3"},
                                {"ranks", "N", "of the largest layout; default 8"}},
                    .least = 1,
                    .most = 1,
                    .recipe_overrides = true};
  const Arguments arguments(usage, words);
  if (arguments.helped()) return 0;
  const Recipe recipe = parse_recipe(find_recipe(arguments.positional()[0]), arguments.overrides()).recipe;
  const auto steps = static_cast<int>(arguments.integer("steps", 3, 1, 99));
  const auto ranks = static_cast<int>(arguments.integer("ranks", 8, 2, 16));
  install_signal_handlers("leaving after the step under way; Ctrl-C again leaves at once");
  const std::unique_ptr<Communicator> world = join_world(stop_requested);
  try {
    checked_places(*world, recipe);
    return verify(recipe, steps, ranks, *world);
  } catch (const std::exception& exception) {
    if (world->size() > 1) world->abort(as_error(exception).code(), as_error(exception).what());
    throw;
  }
}

}  // namespace shoestring
