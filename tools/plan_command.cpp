// shoestring plan RECIPE [--measure SECONDS]
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include "core/budget/best_case.h"
#include "core/budget/cap.h"
#include "core/budget/planner.h"
#include "core/budget/run_estimate.h"
#include "core/model/accounting.h"
#include "core/model/device_precision.h"
#include "core/optimizer/warm_up.h"
#include "core/recipe/installed.h"
#include "core/recipe/names.h"
#include "core/recipe/parse.h"
#include "core/recipe/units.h"
#include "core/training/device_choice.h"
#include "core/training/layout.h"
#include "core/training/measured_plan.h"
#include "core/training/memory_plan.h"
#include "core/training/room.h"
#include "core/training/run_resources.h"
#include "core/training/signals.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "parallel/arrival.h"
#include "tools/arguments.h"
#include "tools/commands.h"
#include "tools/messages.h"
#include "tools/plan_text.h"
#include "tools/suggestion_text.h"

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
    const FlopCounts flops = count_flops(config, recipe.precision, phase.sequence, lora_of(recipe, phase));
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

/// What the program holds before any model: its code, its libraries, the tokenizer.
std::int64_t resident_bytes() {
  std::int64_t pages = 0;
  std::int64_t resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

/// What the recipe's layout asks for at least.
MeshShape mesh_of(const ParallelSpec& parallel) {
  return {
      .data = std::max({1, parallel.data, parallel.expert}), .pipeline = parallel.pipeline, .expert = parallel.expert};
}

/// Of the rank that holds most, on this machine, which it shares with the others.
MemoryPlan memory_of(const Recipe& recipe, const ModelConfig& config) {
  const MeshShape mesh = mesh_of(recipe.parallel);
  const int ranks = mesh.ranks();
  RunShape shape{.tokens = 0,
                 .sequences = 0,
                 .workers = std::max(1, Workers::usable_cores() / ranks),
                 .device = planned_device(recipe)};
  if (recipe.run.threads > 0) shape.workers = recipe.run.threads;
  for (const PhaseSpec& phase : recipe.phases) {
    shape.tokens = std::max(shape.tokens, phase.sequence * phase.micro_batch);
    shape.sequences = std::max(shape.sequences, phase.micro_batch);
  }
  LoraSpec lora = recipe.lora;  // none where some phase trains all weights: that one needs the most
  for (const PhaseSpec& phase : recipe.phases) {
    if (!phase.lora) lora = {};
  }
  const TransformerOptions whole{.model = config,
                                 .precision = recipe.precision,
                                 .run = shape,
                                 .own_stages = {},
                                 .count_precision = recipe.precision.count_saturation,
                                 .lora = lora};
  MemoryPlan most;
  for (int stage = 0; stage < mesh.pipeline; ++stage) {
    const Layout layout = layout_of(recipe, rank_at(mesh, stage, 0), ranks);
    const MemoryPlan plan = plan_memory(Transformer(part_of(whole, layout, nullptr)), recipe, layout);
    if (plan.total() > most.total()) most = plan;
  }
  return most;
}

void print_memory(const Recipe& recipe, const ModelConfig& config) {
  const std::int64_t program = resident_bytes();
  const MemoryPlan plan = memory_of(recipe, config);
  const auto gib = [](std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
  fmt::print(
      "memory       {:.3f} GiB on {}: weights {:.3f}, gradients {:.3f}, moments {:.3f},\n"
      "             compute copies {:.3f}, activations in flight {:.3f}, messages {:.3f}, scratch {:.3f}, tables "
      "{:.3f},\n"
      "             the program {:.3f}\n",
      gib(plan.total() + program),
      mesh_of(recipe.parallel).ranks_of_model() > 1 ? "the fullest rank" : "one rank that holds everything",
      gib(plan.model.parameters), gib(plan.model.gradients), gib(plan.moments), gib(plan.model.prepared),
      gib(plan.model.saved), gib(plan.communication), gib(plan.model.scratch + plan.optimizer_scratch + plan.merged),
      gib(plan.model.tables), gib(program));
}

void print_precision(const Recipe& recipe) {
  const char* title = "precision    ";
  for (const std::string& line : precision_lines(recipe.precision, recipe.model.experts > 0)) {
    fmt::print("{}{}\n", std::exchange(title, "             "), line);
  }
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

/// A plan needs no data; the run will.
void print_missing_inputs(const Recipe& recipe) {
  try {
    check_inputs(recipe);
  } catch (const Error& error) {
    fmt::print("data         train would refuse this (exit code {}): {}\n", static_cast<int>(error.code()),
               error.what());
  }
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

// Foretold from real steps, and kept for the report.
void print_measured(const Recipe& recipe, const MeasuredPlan& measured) {
  const Plan& plan = measured.plan;
  const int ranks = measured.speeds.ranks;
  const auto price = price_of(recipe.budget);
  fmt::print("foretold     by steps of its own, {:.3g} s of each phase, on {} rank{}; {:.3g} GPU-hours, charged\n",
             measured.seconds_per_phase, ranks, ranks == 1 ? "" : "s", ranks * measured.speeds.trial_seconds / 3600);
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
  fmt::print("             of these");
  for (int i = 0; i < kCategories; ++i) {
    const double share = plan.seconds[static_cast<Category>(i)] / plan.seconds.total();
    if (share >= 5e-4) fmt::print("  {} {:.1f}%", name(static_cast<Category>(i)), 100 * share);
  }
  fmt::print("\n");
  if (recipe.schedule.horizon == Horizon::budget) {
    const std::string unfinished =
        unfinished_warmup(recipe, [&](std::size_t phase, double share) { return plan.phases.at(phase).steps * share; });
    if (!unfinished.empty()) fmt::print("             {}\n", unfinished);
  }
  if (plan.cut_short) fmt::print("             the cap ends the run before its phases end\n");
  const std::filesystem::path directory = run_directory(recipe);
  if (measured.begun) {
    fmt::print("             not stored: {} has begun, and a plan is made before the run\n", directory.string());
  } else {
    fmt::print("             stored in {}, for the report\n", (directory / kPlanFile).string());
  }
}

/// The layout of the ranks that a trial ran on, as the planner sees it.
PlanLayout measured_layout(const Recipe& recipe, int ranks) {
  const Layout layout = layout_of(recipe, 0, ranks);
  return {.devices = ranks,
          .pipeline = layout.shape.pipeline,
          .chunks = layout.schedule.name == ScheduleName::interleaved ? layout.schedule.stages_per_rank : 1,
          .expert = layout.shape.expert,
          .sharding = recipe.parallel.shard_optimizer ? Sharding::optimizer : Sharding::none,
          .schedule = layout.schedule.name};
}

// On as many ranks as there are; nothing on those that do not speak. What one rank finds wrong ends all: the others
// would wait for it for ever.
std::optional<MeasuredPlan> measure(const Recipe& recipe, const Hardware& hardware, double seconds) {
  const std::unique_ptr<Communicator> world = join_world(stop_requested);
  try {
    MeasuredPlan measured = measure_plan(recipe, hardware, *world, system_clock(), seconds);
    return world->rank() == 0 ? std::optional(std::move(measured)) : std::nullopt;
  } catch (const std::exception& exception) {
    if (world->size() > 1) {
      const Error error = as_error(exception);
      say("shoestring: rank {}: {}", world->rank(), error.what());
      world->abort(error.code(), error.what());
    }
    throw;
  }
}

int print_suggested(const Arguments& arguments, const Recipe& recipe, std::int64_t vocabulary, const Hardware& hardware,
                    const Cap& cap, int devices) {
  if (std::isinf(cap.gpu_hours)) {
    fail(ExitCode::bad_recipe, "--suggest needs a budget to spend: give budget.gpu_hours, budget.usd or budget.kwh");
  }
  const SuggestionQuestion question{recipe,  hardware,      vocabulary,
                                    devices, cap.gpu_hours, scaling_law_named(arguments.text("law", "joint_moe"))};
  if (arguments.has("json")) {
    fmt::print("{}\n", suggestions_json(question).dump(1));
  } else {
    print_suggestions(question);
  }
  return 0;
}

/// What one option asks for and another leaves undone would be passed over in silence.
void check_together(const Arguments& arguments) {
  const auto both = [&](const char* one, const char* other) { return arguments.has(one) && arguments.has(other); };
  if (arguments.has("law") && !arguments.has("suggest")) {
    fail(ExitCode::usage, "plan: --law is of --suggest; give that too, or leave --law out");
  }
  for (const char* other : {"json", "suggest"}) {
    if (!both("measure", other)) continue;
    fail(ExitCode::usage, "plan: --{} prints what is reckoned and takes no steps; leave it out, or --measure", other);
  }
  if (both("suggest", "layout")) {
    fail(ExitCode::usage, "plan: --suggest chooses the layout; leave --layout out, or look at it without --suggest");
  }
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
            {"suggest", "",
             "which model, tokens, batch and learning rate buy the lowest expected loss for the budget on these "
             "devices; "
             "of the recipe, the precision, the vocabulary and the first phase's sequence count"},
            {"law", "NAME", "the scaling law for --suggest: joint_moe (unless told), chinchilla or chinchilla_refit"},
            {"json", "", "print the estimate, or what is suggested, as JSON, and nothing else"},
            {"measure", "SECONDS",
             "take real steps for about that long, at most two minutes and 0.5% of the cap, on as many ranks as mpirun "
             "starts; foretell the run from them, and keep that as RUN/plan.json: the report sets it beside what came. "
             "The time is charged to the run. With --devices or --layout, those steps correct what is foretold of "
             "other "
             "layouts, cost by cost"}},
       .least = 1,
       .most = 1,
       .recipe_overrides = true},
      words);
  if (arguments.helped()) return 0;
  check_together(arguments);
  if (arguments.has("measure")) install_signal_handlers("leaving; Ctrl-C again leaves at once");
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
  const int recipe_devices = mesh_of(recipe.parallel).ranks();
  const int devices = static_cast<int>(arguments.integer("devices", recipe_devices, 1, kMostDevices));
  std::optional<PlanLayout> fixed;
  if (arguments.has("layout")) fixed = parse_layout(arguments.text("layout"), {.devices = devices});
  const bool asked = arguments.has("devices") || arguments.has("layout") || arguments.has("suggest");
  if ((asked || arguments.has("json")) && recipe.lora.rank > 0) {
    fail(ExitCode::bad_recipe,
         "{}: what is foretold of devices is the training of all weights, not of adapters (lora.rank = {}); plan "
         "without --devices, --layout, --suggest and --json, or with --measure",
         file.string(), recipe.lora.rank);
  }
  PlanQuestion question{recipe, config, hardware, cap, devices, fixed, file.parent_path(), {}};
  if (arguments.has("suggest")) return print_suggested(arguments, recipe, config.vocabulary, hardware, cap, devices);
  if (arguments.has("json")) {
    fmt::print("{}\n", plan_json(question).dump(1));
    return 0;
  }
  std::optional<MeasuredPlan> measured;
  if (arguments.has("measure")) {
    measured = measure(recipe, hardware, seconds);
    if (!measured) return 0;
    if (asked) {
      const Speeds& speeds = measured->speeds;
      question.corrections = corrections_of(recipe, config, hardware, measured_layout(recipe, speeds.ranks), speeds);
    }
  }
  print_model(config);
  print_flops(recipe, config);
  print_memory(recipe, config);
  print_precision(recipe);
  print_budget(recipe, cap);
  print_missing_inputs(recipe);
  if (!recipe.budget.hardware.empty()) print_best_case(recipe, config, hardware, cap);
  if (asked && !print_estimate(question)) return static_cast<int>(ExitCode::bad_recipe);
  if (measured) print_measured(recipe, *measured);
  return 0;
}

}  // namespace shoestring
