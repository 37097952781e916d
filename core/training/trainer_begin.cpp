// How an attempt begins: ledger and budget first, then the model, the newest sound checkpoint and the data.
#include <fmt/core.h>

#include <algorithm>

#include "core/recipe/explain.h"
#include "core/training/model_files.h"
#include "core/training/reference_cost.h"
#include "core/training/room.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "data/chat_tokens.h"
#include "kernels/base/workers.h"
#include "kernels/variant_list.h"
#include "parallel/placement.h"

namespace shoestring {

namespace fs = std::filesystem;

Trainer::Trainer(Recipe recipe, Communicator& world, const Clock& clock, TrainerOptions options)
    : recipe_(std::move(recipe)),
      world_(world),
      options_(std::move(options)),
      places_(checked_places(world, recipe_)),
      layout_(layout_of(recipe_, world.rank(), world.size())),
      rescue_(world.split(0, world.rank(), "rescue")),
      watch_(world, recipe_),
      mesh_(world, layout_.shape),
      meter_(clock),
      stop_(world, clock, stop_requested),
      trace_(world, layout_, recipe_.run.trace, meter_),
      snapshots_(run_directory(recipe_) / "checkpoints", mesh_, meter_),
      account_(snapshots_.writes() ? leading_account({.recipe = recipe_,
                                                      .state = state_,
                                                      .meter = meter_,
                                                      .clock = clock,
                                                      .ranks = world.size(),
                                                      .directory = run_directory(recipe_),
                                                      .out = options_.out})
                                   : std::make_unique<Account>()) {
  begin();
}

void Trainer::begin() {
  const MachineShare share = machine_share(recipe_, world_);
  if (share.device.kind == DeviceKind::cpu) {
    const ReferenceCost plain_rows = reference_cost(recipe_, machine_lacks);
    check_reference_cost(plain_rows, recipe_.kernels.allow_reference);
    if (!plain_rows.ops.empty()) account_->say(plain_rows.to_string());
  }
  double ended = account_->open({.hardware = hardware_of(recipe_, options_.recipe_folder),
                                 .price = price_of(recipe_.budget),
                                 .checkpoints = snapshots_.store(),
                                 .begin_anew = options_.begin_anew,
                                 .from_older = options_.from_older,
                                 .warning_command = options_.warning_command})
                     ? 1.0
                     : 0.0;
  if (snapshots_.writes()) Watch::clear(run_directory(recipe_));
  world_.broadcast(view_of(&ended, DType::f64, {1}), 0);
  watch_.begin(run_directory(recipe_));
  try {
    const std::string unlike = unlike_processors(places_);
    if (!unlike.empty() && ended == 0) account_->note("processors", unlike);
    if (ended == 0) account_->note("device", share.device_text);
    if (share.device.kind == DeviceKind::cuda) watch_power(share.device_pci);
    const int cores = std::max(1, Workers::usable_cores() / share.ranks_on_cores);
    const std::string caveat = thread_caveat(recipe_.run.threads, cores);
    if (!caveat.empty()) account_->say(caveat);
    resources_ = std::make_unique<RunResources>(recipe_, layout_, mesh_, share);
    layout_.stage_layers = resources_->stage_layers();
    if (!resources_->cut_text().empty()) account_->say(resources_->cut_text());
    if (world_.size() > 1) account_->say(launch_text(places_, layout_, resources_->workers().count()));
    if (const std::string reach = resources_->reach_text(); !reach.empty()) account_->say(reach);
    load(ended != 0);
  } catch (const std::exception& error) {
    watch_.tell_others(as_error(error));
    if (ended == 0) account_->failed(as_error(error));
    watch_.await_leader();
    throw;
  }
}

// Model, optimizer and data as the newest sound checkpoint left them, or as the recipe begins them.
void Trainer::load(bool ended) {
  leave_if_asked();
  const fs::path newest = snapshots_.newest(looking());
  leave_if_asked();
  if (!newest.empty()) resume(newest);
  leave_if_asked();
  over_ = ended && !newest.empty() && horizon_reached(recipe_, state_);
  if (over_) {
    return account_->say(fmt::format("{}: done at step {}; nothing is left to train", recipe_.run.name, state_.step));
  }
  const int groups = reduction_groups(recipe_, layout_, state_.reduction_groups);
  const bool fresh = state_.reduction_groups == 0;
  state_.reduction_groups = groups;
  state_.recipe = canonical_text(recipe_);
  if (fresh) {
    begin_weights();
  } else {
    resources_->goes_on_in(state_.phase);
    resources_->model().prepare();
  }
  watch_.files_take(resources_->guessed_checkpoint_seconds());
  engine_ = make_engine();
  leave_if_asked();
  enter_phase();
  leave_if_asked();
  guess_evaluation();
  guess_suites();
  account_->start({.model = resources_->model().config(),
                   .device = resources_->stream().device(),
                   .guessed_checkpoint_seconds = resources_->guessed_checkpoint_seconds(),
                   .checkpoint_bytes = snapshots_.bytes(parts()),
                   .has_checkpoint = snapshots_.step() >= 0,
                   .fresh = fresh,
                   .allow_schedule_over = options_.allow_recipe_change});
  snapshots_.begin();
  const std::string caveat = tokenizer_caveat(recipe_.model.architecture);
  if (fresh && !caveat.empty()) account_->say(caveat);
  if (recipe_.optimizer.state == StateMemory::host && resources_->stream().device().kind == DeviceKind::cpu) {
    account_->say("optimizer.state = host: a CPU has one memory for both, nothing is different");
  }
  first_step_ = state_.step;
  meter_.enter(Category::idle);
}

// Before the first step there is nothing to save, and nobody to agree with: whoever is asked tells the others.
void Trainer::leave_if_asked() const {
  if (!stop_requested()) return;
  fail(ExitCode::preempted, "{}: left as asked before its first step; run the same command to begin", recipe_.run.name);
}

void Trainer::resume(const fs::path& checkpoint) {
  state_ = Snapshots::state_of(checkpoint);
  if (state_.phase >= static_cast<int>(recipe_.phases.size())) {
    fail(ExitCode::bad_recipe, "{}: the run is in phase {}, the recipe has only {}", checkpoint.string(),
         state_.phase + 1, recipe_.phases.size());
  }
  if (!options_.allow_recipe_change) {
    check_resume(parse_recipe_text(state_.recipe, checkpoint.string()).recipe, recipe_);
  }
  resources_->fit_to(state_.phase);
  Snapshots::load(checkpoint, parts());
  snapshots_.loaded(state_.step);
}

std::unique_ptr<Engine> Trainer::make_engine() {
  const EngineParts moved{resources_->model(), resources_->optimizer(), resources_->stream()};
  auto engine = std::make_unique<Engine>(recipe_, moved, mesh_, state_.reduction_groups, meter_, layout_.schedule);
  engine->guard().restore(state_.guard);
  return engine;
}

// New weights, or a folder's, or others to train, for the run or from this phase on. With them the optimizer and the
// warm-up begin.
void Trainer::begin_weights() {
  const RunResources::Begun begun = resources_->begin_weights(
      state_.phase, snapshots_.writes(), [this](const Progress& progress) { account_->working(progress); });
  if (!begun.key.empty()) account_->note(begun.key.c_str(), begun.what);
  resources_->model().prepare();
  state_.updates = 0;
}

// Whether the weights of a checkpoint of `phase` were left for others.
bool Trainer::took_other_weights_since(int phase) const {
  for (int later = phase + 1; later <= state_.phase; ++later) {
    if (resources_->begins_with_weights(later)) return true;
  }
  return false;
}

void Trainer::enter_phase() {
  phase_ = std::make_unique<Phase>(recipe_, *resources_, mesh_, layout_, state_, storage_hooks());
  state_.data_plan = phase_->data_plan();
  if (state_.phase_samples > 0) return;
  if (const std::string text = phase_->long_documents(); !text.empty()) account_->note("data", text);
  if (phase_->plan().phase().objective != ObjectiveName::masked) return;
  account_->say(fmt::format("the first example, learned between {} and {}:\n{}", kLearnedBegin, kLearnedEnd,
                            phase_->first_example(resources_->tokenizer())));
}

// A line of another rank goes to its own terminal: the account is kept by one.
StorageHooks Trainer::storage_hooks() {
  const auto doing = [this] { return fmt::format("step {}", state_.step + 1); };
  return {.say =
              [this](const std::string& line) {
                if (snapshots_.writes()) return account_->note("data", line);
                fmt::print(stderr, "rank {}: {}\n", world_.rank(), line);
              },
          .waits = [this, doing] { watch_.works_on_files_alone("waiting for data of " + doing()); },
          .goes_on = [this, doing] { watch_.steps(doing()); },
          .storage = options_.storage};
}

// What the report says of where the samples came from. Collective, at the end of a phase.
void Trainer::tell_sources() {
  read_before_.add(reading_of_all(phase_->reading(), world_), kLateShards);
  account_->read(read_before_);
  for (const std::string& text : {phase_->given(state_.phase_samples), phase_->staged()}) {
    if (!text.empty()) account_->note("data", text);
  }
}

void Trainer::watch_power(const std::string& pci) {
  monitor_ = std::make_unique<DeviceMonitor>(pci);
  if (!monitor_->fault().empty()) {
    return account_->say(fmt::format("energy and clocks are not measured: {}", monitor_->fault()));
  }
  power_ = std::make_unique<PowerLog>([this] { return monitor_->read(); });
  power_->look(meter_.elapsed_seconds());
}

// At the end of an attempt, once.
void Trainer::tell_power() {
  if (!power_) return;
  power_->look(meter_.elapsed_seconds());
  if (const std::string text = power_->text(); !text.empty()) account_->note("energy", text);
  power_.reset();
}

void Trainer::enter_next_phase() {
  watch_.new_phase();
  watch_.works_on_files(fmt::format("entering phase {}", state_.phase + 2));
  tell_sources();
  phase_.reset();  // its threads and files, before the next one's
  ++state_.phase;
  state_.phase_steps = 0;
  state_.phase_samples = 0;
  state_.data_plan.clear();
  state_.best_held_out.reset();
  state_.best_step = -1;
  state_.stale_evaluations = 0;
  engine_->guard().forget();
  state_.guard = engine_->guard().state();
  if (resources_->begins_with_weights(state_.phase)) {
    Engine::Change change(*engine_);
    const bool others = resources_->fit_to(state_.phase);
    begin_weights();
    if (others) {
      engine_.reset();  // it and the next one tell the same exchange of experts who listens
      engine_ = make_engine();
    } else {
      change.kept();
    }
  }
  enter_phase();
  account_->entered_phase(spent());
  guess_evaluation();
  guess_suites();
}

// What the last evaluation will take, until one has been measured.
void Trainer::guess_evaluation() {
  if (phase_->evaluator() == nullptr) return;
  double wanted = account_->guesses_evaluation() ? 1 : 0;
  if (phase_->evaluator()->collective()) world_.broadcast(view_of(&wanted, DType::f64, {1}), 0);
  if (wanted == 0) return;
  const Meter::Scope timing(meter_, Category::evaluation);
  account_->guess_evaluation(phase_->evaluator()->estimate_seconds(stop_requested));
}

// The same of the suites at the end of the phase.
void Trainer::guess_suites() {
  if (phase_->suites() == nullptr) return;
  double wanted = account_->guesses_suites() ? 1 : 0;
  if (phase_->suites()->collective()) world_.broadcast(view_of(&wanted, DType::f64, {1}), 0);
  if (wanted == 0) return;
  const Meter::Scope timing(meter_, Category::evaluation);
  account_->guess_suites(phase_->suites()->estimate_seconds(stop_requested));
}

}  // namespace shoestring
