// shoestring plan RECIPE [--measure SECONDS]
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/budget/best_case.h"
#include "core/budget/cap.h"
#include "core/budget/ledger.h"
#include "core/budget/planner.h"
#include "core/budget/run_estimate.h"
#include "core/model/accounting.h"
#include "core/optimizer/learning_rate.h"
#include "core/recipe/installed.h"
#include "core/recipe/names.h"
#include "core/recipe/parse.h"
#include "core/recipe/units.h"
#include "core/training/run_resources.h"
#include "core/training/speed_trial.h"
#include "data/tokenizer.h"
#include "kernels/base/file.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/plan_text.h"

namespace shoestring {
namespace {

// A recipe that names its vocabulary can be planned without its data.
std::int64_t tokenizer_vocabulary(const Recipe& recipe) {
  if (recipe.model.vocabulary > 0) return recipe.model.vocabulary;
  return load_tokenizer(tokenizer_file(recipe))->vocabulary_size();
}

void print_model(const ModelConfig& config) {
  const ParameterCounts counts = count_parameters(config);
  fmt::print("model        {}, {} layers of {}, vocabulary {}\n", word(config.architecture), config.layers,
             config.hidden, config.vocabulary);
  fmt::print("parameters   {} total, {} active per token", rounded(static_cast<double>(counts.total)),
             rounded(static_cast<double>(counts.active)));
  if (counts.further > 0) {
    fmt::print("; multi-token prediction {} more", rounded(static_cast<double>(counts.further)));
  }
  fmt::print("\n");
}

void print_flops(const Recipe& recipe, const ModelConfig& config) {
  for (const PhaseSpec& phase : recipe.phases) {
    const FlopCounts flops = count_flops(config, recipe.precision, phase.sequence);
    const FormatFlops formats = flops.training_by_format();
    fmt::print("FLOPs        {} per trained token in phase {} (sequence {})", rounded(flops.training()), phase.name,
               phase.sequence);
    if (flops.further.total() > 0) fmt::print(", {} without multi-token prediction", rounded(flops.training(false)));
    fmt::print("\n             of these");
    for (const auto& [name, value] : {std::pair("fp8", formats.fp8), std::pair("bf16", formats.bf16),
                                      std::pair("fp32", formats.f32), std::pair("fp64", formats.f64)}) {
      if (value > 0) fmt::print("  {} {:.1f}%", name, 100 * value / formats.total());
    }
    fmt::print("\n");
  }
}

void print_memory(const Recipe& recipe, const ModelConfig& config) {
  RunShape shape{.tokens = 0, .sequences = 0, .workers = 1};
  for (const PhaseSpec& phase : recipe.phases) {
    shape.tokens = std::max(shape.tokens, phase.sequence * phase.micro_batch);
    shape.sequences = std::max(shape.sequences, phase.micro_batch);
  }
  const MemoryPlan plan = plan_memory({.model = config,
                                       .precision = recipe.precision,
                                       .run = shape,
                                       .stages = 1,
                                       .own_stages = {},
                                       .in_flight = {},
                                       .count_precision = true},
                                      recipe.optimizer.name);
  const auto gib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  fmt::print(
      "memory       {:.3f} GiB on one rank that holds everything: weights {:.3f}, gradients {:.3f}, moments {:.3f},\n"
      "             compute copies {:.3f}, activations of a micro-batch {:.3f}, scratch {:.3f}, tables {:.3f}\n",
      gib(plan.total()), gib(plan.model.parameters), gib(plan.model.gradients), gib(plan.moments),
      gib(plan.model.prepared), gib(plan.model.saved), gib(plan.model.scratch + plan.optimizer_scratch),
      gib(plan.model.tables));
}

void print_budget(const Recipe& recipe, const Cap& cap) {
  if (std::isinf(cap.gpu_hours)) {
    fmt::print("budget       no cap\n");
    return;
  }
  fmt::print("budget       {} GPU-hours ({})", rounded(cap.gpu_hours), cap.from);
  if (const auto price = price_of(recipe.budget)) {
    fmt::print(", ${} at ${} per GPU-hour ({}, {})", rounded(price->usd(cap.gpu_hours)), price->usd_per_gpu_hour,
               price->source, price->date);
  }
  fmt::print("\n");
}

void print_best_case(const Recipe& recipe, const ModelConfig& config, const Hardware& hardware, const Cap& cap) {
  const bool by_budget = recipe.schedule.horizon == Horizon::budget;
  const BestCase best = best_case(recipe, config, hardware, cap.gpu_hours);
  if (best.unrated) {
    fmt::print("at best      {} does not say how fast it multiplies in {}\n", hardware.name, name(*best.unrated));
    return;
  }
  const auto price = price_of(recipe.budget);
  const auto row = [&](const std::string& what, double tokens, double gpu_hours) {
    fmt::print("             {:<20} {:>10} {:>12} {:>12}\n", what, rounded(tokens), rounded(gpu_hours),
               price ? rounded(price->usd(gpu_hours)) : "-");
  };
  fmt::print("at best      on {}, its matrix products as fast as they get and nothing lost\n", hardware.name);
  fmt::print("             {:<20} {:>10} {:>12} {:>12}\n", "phase", by_budget ? "tokens <=" : "tokens",
             by_budget ? "GPU-hours" : "GPU-hours >=", by_budget ? "usd" : "usd >=");
  for (const PhaseBound& phase : best.phases) row(phase.name, phase.tokens, phase.gpu_hours);
  if (best.phases.size() > 1) row("all", best.tokens(), best.gpu_hours());
  if (by_budget || std::isinf(cap.gpu_hours)) return;
  const double share = best.gpu_hours() / cap.gpu_hours;
  fmt::print("             {:.1f}% of the cap{}\n", 100 * share,
             share > 1 ? ": this run cannot reach its end inside it" : "");
}

// Takes real steps, foretells the run from them, and keeps that for the report.
void measure(const Recipe& recipe, const Cap& cap, double seconds) {
  const std::filesystem::path directory = run_directory(recipe);
  const bool begun = type_of(directory / kLedgerFile) != std::filesystem::file_type::not_found;
  const Plan plan = make_plan(recipe, cap.gpu_hours, try_speed(recipe, system_clock(), seconds));
  const auto price = price_of(recipe.budget);
  fmt::print("foretold     by steps of its own, {:.3g} s of each phase, on one rank\n", seconds);
  fmt::print("             {:<20} {:>10} {:>12} {:>12} {:>10}\n", "phase", "tokens", "GPU-hours", "usd", "steps");
  const auto usd = [&](double gpu_hours) { return price ? rounded(price->usd(gpu_hours)) : "-"; };
  const auto row = [&](const std::string& what, const std::string& tokens, double gpu_hours, const std::string& steps) {
    fmt::print("             {:<20} {:>10} {:>12} {:>12} {:>10}\n", what, tokens, rounded(gpu_hours), usd(gpu_hours),
               steps);
  };
  for (const PlannedPhase& phase : plan.phases) {
    row(phase.name, rounded(phase.tokens), phase.gpu_hours, rounded(phase.steps));
  }
  row("start and end", "", plan.around_gpu_hours, "");
  row("all", rounded(plan.tokens()), plan.gpu_hours(), rounded(plan.steps()));
  if (recipe.schedule.horizon == Horizon::budget) {
    const std::string unfinished = unfinished_warmup(recipe.schedule, std::llround(plan.steps()));
    if (!unfinished.empty()) fmt::print("             {}\n", unfinished);
  }
  if (plan.cut_short) fmt::print("             the cap ends the run before its phases end\n");
  if (begun) {
    fmt::print("             not stored: {} has begun, and a plan is made before the run\n", directory.string());
    return;
  }
  make_directories(directory);
  write_plan(directory, plan, recipe);
  fmt::print("             stored in {}, for the report\n", (directory / kPlanFile).string());
}

}  // namespace

int plan_command(const Words& words) {
  const Arguments arguments(
      {.command = "plan",
       .positional = "RECIPE",
       .summary = "What the recipe's model is and needs: parameters, FLOPs per token, bytes, and what "
                  "the budget buys, or the phases cost, at best.",
       .options =
           {{"devices", "N", "how many devices the run has (what the recipe's layout asks for, or 1)"},
            {"layout", "WORDS", "look at this layout alone: \"pipeline=16 expert=64 schedule=dualpipev\""},
            {"json", "", "print the estimate as JSON, and nothing else"},
            {"measure", "SECONDS",
             "take real steps of each phase for about that long, foretell the run, and keep that as RUN/plan.json: "
             "the report sets it beside what came"}},
       .least = 1,
       .most = 1,
       .recipe_overrides = true},
      words);
  if (arguments.helped()) return 0;
  constexpr double kMostSeconds = 3600;
  const double seconds = arguments.real("measure", 0, 0.1, kMostSeconds, Unit::seconds);
  const std::filesystem::path file = find_recipe(arguments.positional()[0]);
  const Recipe recipe = parse_recipe(file, arguments.overrides()).recipe;
  std::int64_t longest = 0;
  for (const PhaseSpec& phase : recipe.phases) longest = std::max(longest, phase.sequence);
  const ModelConfig config = resolve_model(recipe.model, tokenizer_vocabulary(recipe), longest);
  const Hardware hardware = hardware_of(recipe, file.parent_path());
  const Cap cap = cap_of(recipe.budget, hardware);
  constexpr std::int64_t kMostDevices = 1 << 20;
  const int recipe_devices = std::max(1, recipe.parallel.pipeline * recipe.parallel.data);
  const int devices = static_cast<int>(arguments.integer("devices", recipe_devices, 1, kMostDevices));
  std::optional<PlanLayout> fixed;
  if (arguments.has("layout")) fixed = parse_layout(arguments.text("layout"), {.devices = devices});
  const PlanQuestion question{recipe, config, hardware, cap, devices, fixed, file.parent_path()};
  if (arguments.has("json")) {
    fmt::print("{}\n", plan_json(question).dump(1));
    return 0;
  }
  print_model(config);
  print_flops(recipe, config);
  print_memory(recipe, config);
  print_budget(recipe, cap);
  if (!recipe.budget.hardware.empty()) print_best_case(recipe, config, hardware, cap);
  const bool asked = arguments.has("devices") || arguments.has("layout");
  if (asked && !print_estimate(question)) return static_cast<int>(ExitCode::bad_recipe);
  if (arguments.has("measure")) {
    std::fflush(stdout);
    measure(recipe, cap, seconds);
  }
  return 0;
}

}  // namespace shoestring
