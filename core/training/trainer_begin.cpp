// How an attempt begins: ledger and budget first, then the model, the newest sound checkpoint and the data.
#include <fmt/core.h>

#include <algorithm>

#include "core/recipe/explain.h"
#include "core/recipe/validate.h"
#include "core/training/alike.h"
#include "core/training/going_on.h"
#include "core/training/model_files.h"
#include "core/training/reference_cost.h"
#include "core/training/room.h"
#include "core/training/saved_work.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "data/chat_tokens.h"
#include "kernels/base/file.h"
#include "kernels/base/workers.h"
#include "kernels/variant_list.h"
#include "parallel/placement.h"

namespace shoestring {

namespace fs = std::filesystem;

Trainer::Trainer(Recipe recipe, Communicator& world, const Clock& clock, TrainerOptions options)
    : recipe_(std::move(recipe)),
      options_(std::move(options)),
      seat_(world, recipe_, clock),
      timing_(seat_, recipe_, clock),
      snapshots_(run_directory(recipe_) / "checkpoints", seat_.mesh, timing_.meter),
      account_(snapshots_.writes() ? leading_account({.recipe = recipe_,
                                                      .state = attempt_.state,
                                                      .meter = timing_.meter,
                                                      .clock = clock,
                                                      .ranks = world.size(),
                                                      .head_start = seat_.head_start,
                                                      .directory = run_directory(recipe_),
                                                      .out = options_.out})
                                   : std::make_unique<Account>()) {
  begin();
}

void Trainer::begin() {
  const MachineShare share = machine_share(recipe_, seat_.world);
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
  try {
    seat_.world.broadcast(view_of(&ended, DType::f64, {1}), 0);
    seat_.watch.begin(run_directory(recipe_));
    if (ended == 0) check_checkpoints_are_shared();
    const std::string unlike = unlike_processors(seat_.places);
    if (!unlike.empty() && ended == 0) account_->note("processors", unlike);
    if (ended == 0) account_->note("device", share.device_text);
    if (share.device.kind == DeviceKind::cuda) watch_power(share.device_pci);
    const int cores = std::max(1, Workers::usable_cores() / share.ranks_on_cores);
    const std::string caveat = thread_caveat(recipe_.run.threads, cores);
    if (!caveat.empty()) account_->say(caveat);
    work_.resources = std::make_unique<RunResources>(recipe_, seat_.layout, seat_.mesh, share);
    seat_.layout.stage_layers = work_.resources->stage_layers();
    if (!work_.resources->cut_text().empty()) account_->say(work_.resources->cut_text());
    if (seat_.world.size() > 1)
      account_->say(launch_text(seat_.places, seat_.layout, work_.resources->workers().count()));
    if (const std::string reach = work_.resources->reach_text(); !reach.empty()) account_->say(reach);
    load(ended != 0);
  } catch (const std::exception& exception) {
    Error error = as_error(exception);
    seat_.watch.tell_others(error);
    const bool goes_on = error.code() == ExitCode::preempted || error.code() == ExitCode::io;
    if (goes_on && type_of(snapshots_.store().root()) == fs::file_type::directory) {
      error = Error(error.code(), fmt::format("{}\n{}", error.what(), saved_work_text(snapshots_.store())));
    }
    if (ended == 0) account_->failed(error);
    seat_.watch.await_leader();
    throw error;
  }
}

// Their folder may be a link out of the run's own.
void Trainer::check_checkpoints_are_shared() {
  const fs::path& root = snapshots_.store().root();
  double there = snapshots_.writes() && type_of(root) == fs::file_type::directory ? 1 : 0;
  seat_.world.broadcast(view_of(&there, DType::f64, {1}), 0);
  if (there != 0) check_shared_folder(seat_.world, root);
}

// Model, optimizer and data as the newest sound checkpoint left them, or as the recipe begins them.
void Trainer::load(bool ended) {
  leave_if_asked();
  const fs::path newest = snapshots_.newest(looking(), [this] { leave_if_asked(); });
  leave_if_asked();
  const std::string changed = newest.empty() ? std::string() : resume(newest);
  leave_if_asked();
  attempt_.over = ended && !newest.empty() && horizon_reached(recipe_, attempt_.state);
  if (attempt_.over) {
    return account_->say(
        fmt::format("{}: done at step {}; nothing is left to train", recipe_.run.name, attempt_.state.step));
  }
  const int groups = reduction_groups(recipe_, seat_.layout, attempt_.state.reduction_groups);
  const bool fresh = attempt_.state.reduction_groups == 0;
  attempt_.state.reduction_groups = groups;
  attempt_.state.recipe = canonical_text(recipe_);
  if (fresh) {
    begin_weights();
  } else {
    work_.resources->goes_on_in(attempt_.state.phase);
    work_.resources->model().prepare();
  }
  seat_.watch.files_take(work_.resources->guessed_checkpoint_seconds());
  work_.engine = make_engine();
  leave_if_asked();
  enter_phase();
  leave_if_asked();
  guess_evaluation();
  guess_suites();
  account_->start(
      {.model = work_.resources->model().config(),
       .device = work_.resources->stream().device(),
       .guessed_checkpoint_seconds = work_.resources->guessed_checkpoint_seconds(),
       .checkpoint = snapshots_.need(parts()),
       .room = least_room(seat_.world, snapshots_.takes_part(parts()) ? disk_room(run_directory(recipe_)) : DiskRoom{}),
       .has_checkpoint = snapshots_.step() >= 0,
       .fresh = fresh,
       .allow_schedule_over = options_.allow_recipe_change});
  if (!changed.empty()) account_->note("recipe", "goes on with another recipe, as was allowed: " + changed);
  snapshots_.begin();
  const std::string caveat = tokenizer_caveat(recipe_.model.architecture);
  if (fresh && !caveat.empty()) account_->say(caveat);
  const std::string other_router = router_caveat(work_.resources->model().config());
  if (fresh && !other_router.empty()) account_->say(other_router);
  if (recipe_.optimizer.state == StateMemory::host && work_.resources->stream().device().kind == DeviceKind::cpu) {
    account_->say("optimizer.state = host: a CPU has one memory for both, nothing is different");
  }
  if (const std::string unmeasured = held_out_caveat(recipe_); !unmeasured.empty()) account_->say(unmeasured);
  attempt_.first_step = attempt_.state.step;
  timing_.meter.enter(Category::idle);
}

// Before the first step there is nothing to save, and nobody to agree with: whoever is asked tells the others.
void Trainer::leave_if_asked() const {
  if (!stop_requested()) return;
  fail(ExitCode::preempted, "{}: left as asked before a step was taken; the same command begins", recipe_.run.name);
}

// Returns what of the recipe was changed, and allowed to be.
std::string Trainer::resume(const fs::path& checkpoint) {
  check_alike(seat_.world, {{checkpoint.string(), hash_file(checkpoint / "manifest.json")}});
  attempt_.state = Snapshots::state_of(checkpoint);
  if (attempt_.state.step != step_of(checkpoint)) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: it holds step {} of a run, not the step of its name, by which the run is gone on with: give it its own "
         "name back, or move it away to go on from another",
         checkpoint.string(), attempt_.state.step);
  }
  if (attempt_.state.phase >= static_cast<int>(recipe_.phases.size())) {
    fail(ExitCode::bad_recipe, "{}: the run is in phase {}, the recipe has only {}", checkpoint.string(),
         attempt_.state.phase + 1, recipe_.phases.size());
  }
  std::string changed;
  try {
    const Recipe before = parse_recipe_text(attempt_.state.recipe, checkpoint.string()).recipe;
    if (!options_.allow_recipe_change) check_resume(before, recipe_);
    changed = recipe_change_text(before, recipe_);
  } catch (const Error&) {
    if (!options_.allow_recipe_change) throw;
    changed = "the one before cannot be read";
  }
  work_.resources->fit_to(attempt_.state.phase);
  try {
    Snapshots::load(checkpoint, parts(), [this] { leave_if_asked(); });
  } catch (const Error& error) {  // its hashes were right: it is not damaged
    if (changed.empty() || error.code() != ExitCode::corrupt_checkpoint) throw;
    const std::string what = error.what();  // and then a remedy for damage
    fail(ExitCode::bad_recipe,
         "{} is whole, and does not hold what the changed recipe trains ({}): put the recipe back, or begin a new run "
         "under another run.name. The first that is missing: {}",
         checkpoint.string(), changed, what.substr(0, what.find(';')));
  }
  snapshots_.loaded(attempt_.state.step);
  return changed;
}

std::unique_ptr<Engine> Trainer::make_engine() {
  const EngineParts moved{work_.resources->model(), work_.resources->optimizer(), work_.resources->stream()};
  auto engine = std::make_unique<Engine>(recipe_, moved, seat_.mesh, attempt_.state.reduction_groups, timing_.meter,
                                         seat_.layout.schedule);
  engine->guard().restore(attempt_.state.guard);
  return engine;
}

// New weights, or a folder's, or others to train, for the run or from this phase on. With them the optimizer and the
// warm-up begin. Where steps were taken before, a request to leave waits: there is something to save.
void Trainer::begin_weights() {
  const bool starts = work_.engine == nullptr;
  const RunResources::Begun begun =
      work_.resources->begin_weights(attempt_.state.phase, snapshots_.writes(), [&](const Progress& progress) {
        if (starts) leave_if_asked();
        account_->working(progress);
      });
  if (!begun.key.empty()) account_->note(begun.key.c_str(), begun.what);
  work_.resources->model().prepare();
  attempt_.state.updates = 0;
}

// Whether the weights of a checkpoint of `phase` were left for others.
bool Trainer::took_other_weights_since(int phase) const {
  for (int later = phase + 1; later <= attempt_.state.phase; ++later) {
    if (work_.resources->begins_with_weights(later)) return true;
  }
  return false;
}

void Trainer::enter_phase() {
  attempt_.waits_until = timing_.meter.elapsed_seconds() + account_->remaining_seconds();
  seat_.world.broadcast(view_of(&attempt_.waits_until, DType::f64, {1}), 0);
  work_.phase =
      std::make_unique<Phase>(recipe_, *work_.resources, seat_.mesh, seat_.layout, attempt_.state, storage_hooks());
  attempt_.state.data_plan = work_.phase->data_plan();
  if (attempt_.state.phase_samples > 0) return;
  if (const std::string text = work_.phase->long_documents(); !text.empty()) account_->note("data", text);
  if (work_.phase->plan().phase().objective != ObjectiveName::masked) return;
  account_->say(fmt::format("the first example, learned between {} and {}:\n{}", kLearnedBegin, kLearnedEnd,
                            work_.phase->first_example(work_.resources->tokenizer())));
}

// A line of another rank goes to its own terminal: the account is kept by one.
StorageHooks Trainer::storage_hooks() {
  const auto doing = [this] { return fmt::format("step {}", attempt_.state.step + 1); };
  return {.say =
              [this](const std::string& line) {
                if (snapshots_.writes()) return account_->note("data", line);
                fmt::print(stderr, "rank {}: {}\n", seat_.world.rank(), line);
              },
          .waits = [this, doing] { seat_.watch.works_on_files_alone("waiting for data of " + doing()); },
          .goes_on = [this, doing] { seat_.watch.steps(doing()); },
          .storage = options_.storage,
          .left = [this] { return attempt_.waits_until - timing_.meter.elapsed_seconds(); }};
}

// What the report says of where the samples came from. Collective, at the end of a phase.
void Trainer::tell_sources() {
  work_.read_before.add(reading_of_all(work_.phase->reading(), seat_.world), kLateShards);
  account_->read(work_.read_before);
  for (const std::string& text : {work_.phase->given(attempt_.state.phase_samples), work_.phase->staged()}) {
    if (!text.empty()) account_->note("data", text);
  }
}

void Trainer::watch_power(const std::string& pci) {
  energy_.monitor = std::make_unique<DeviceMonitor>(pci);
  if (!energy_.monitor->fault().empty()) {
    return account_->say(fmt::format("energy and clocks are not measured: {}", energy_.monitor->fault()));
  }
  energy_.power = std::make_unique<PowerLog>([this] { return energy_.monitor->read(); });
  energy_.power->look(timing_.meter.elapsed_seconds());
}

// At the end of an attempt, once.
void Trainer::tell_power() {
  if (!energy_.power) return;
  energy_.power->look(timing_.meter.elapsed_seconds());
  if (const std::string text = energy_.power->text(); !text.empty()) account_->note("energy", text);
  energy_.power.reset();
}

// What the report says of where the host waited for its device. Once for each engine.
void Trainer::tell_waits() {
  if (work_.engine == nullptr || std::exchange(work_.waits_told, true)) return;
  if (const std::string text = work_.engine->waits_text(); !text.empty()) account_->note("waits of the host", text);
}

void Trainer::enter_next_phase() {
  seat_.watch.new_phase();
  seat_.watch.works_on_files(fmt::format("entering phase {}", attempt_.state.phase + 2));
  tell_sources();
  work_.phase.reset();  // its threads and files, before the next one's
  ++attempt_.state.phase;
  attempt_.state.phase_steps = 0;
  attempt_.state.phase_samples = 0;
  attempt_.state.data_plan.clear();
  attempt_.state.best_held_out.reset();
  attempt_.state.best_step = -1;
  attempt_.state.stale_evaluations = 0;
  work_.engine->guard().forget();
  attempt_.state.guard = work_.engine->guard().state();
  if (work_.resources->begins_with_weights(attempt_.state.phase)) {
    Engine::Change change(*work_.engine);
    const bool others = work_.resources->fit_to(attempt_.state.phase);
    begin_weights();
    if (others) {
      tell_waits();
      work_.waits_told = false;
      work_.engine.reset();  // it and the next one tell the same exchange of experts who listens
      work_.engine = make_engine();
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
  if (work_.phase->evaluator() == nullptr) return;
  double wanted = account_->guesses_evaluation() ? 1 : 0;
  if (work_.phase->evaluator()->collective()) seat_.world.broadcast(view_of(&wanted, DType::f64, {1}), 0);
  if (wanted == 0) return;
  const Meter::Scope timing(timing_.meter, Category::evaluation);
  account_->guess_evaluation(work_.phase->evaluator()->estimate_seconds(stop_requested));
}

// The same of the suites at the end of the phase.
void Trainer::guess_suites() {
  if (work_.phase->suites() == nullptr) return;
  double wanted = account_->guesses_suites() ? 1 : 0;
  if (work_.phase->suites()->collective()) seat_.world.broadcast(view_of(&wanted, DType::f64, {1}), 0);
  if (wanted == 0) return;
  const Meter::Scope timing(timing_.meter, Category::evaluation);
  account_->guess_suites(work_.phase->suites()->estimate_seconds(stop_requested));
}

}  // namespace shoestring
