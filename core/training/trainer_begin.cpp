// How an attempt begins: ledger and budget first, then the model, the newest sound checkpoint and the data.

#include "core/recipe/explain.h"
#include "core/training/model_files.h"
#include "core/training/reference_cost.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "kernels/base/workers.h"
#include "kernels/variant_list.h"
#include "parallel/placement.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

// The same text on every rank.
std::string broadcast_text(Communicator& world, std::string text) {
  std::int64_t bytes = static_cast<std::int64_t>(text.size());
  world.broadcast(view_of(&bytes, DType::i64, {1}), 0);
  text.resize(static_cast<std::size_t>(bytes));
  if (bytes > 0) world.broadcast(view_of(text.data(), DType::u8, {bytes}), 0);
  return text;
}

// The launcher says how many ranks there are. A recipe that counts on another number is refused before it costs
// anything.
void check_ranks(const Recipe& recipe, int ranks) {
  const int wanted = recipe.parallel.data;
  if (wanted == 0 || wanted == ranks) return;
  fail(ExitCode::bad_recipe,
       "parallel.data = {}, but the run was launched on {} rank{}; launch it with mpirun -n {}, or leave parallel.data "
       "out to train on all there are",
       wanted, ranks, ranks == 1 ? "" : "s", wanted);
}

int reduction_groups(const Recipe& recipe, const TrainingState& state, int ranks) {
  const int groups = state.reduction_groups > 0             ? state.reduction_groups
                     : recipe.parallel.reduction_groups > 0 ? recipe.parallel.reduction_groups
                                                            : ranks;
  if (groups % ranks != 0) {
    fail(ExitCode::bad_recipe,
         "{} ranks cannot share {} reduction groups evenly; launch a number of ranks that divides "
         "{}, or begin a new run with another parallel.reduction_groups",
         ranks, groups, groups);
  }
  for (const PhaseSpec& phase : recipe.phases) {
    if (phase.global_batch / phase.micro_batch < groups) {
      fail(ExitCode::bad_recipe, "phase {}: {} micro-batches per step are fewer than the {} reduction groups",
           phase.name, phase.global_batch / phase.micro_batch, groups);
    }
  }
  return groups;
}

}  // namespace

Trainer::Trainer(Recipe recipe, Communicator& world, const Clock& clock, TrainerOptions options)
    : recipe_(std::move(recipe)),
      world_(world),
      options_(std::move(options)),
      meter_(clock),
      directory_(run_directory(recipe_)),
      checkpoints_(directory_ / "checkpoints"),
      account_(leads() ? leading_account({.recipe = recipe_,
                                          .state = state_,
                                          .meter = meter_,
                                          .clock = clock,
                                          .ranks = world.size(),
                                          .directory = directory_,
                                          .out = options_.out})
                       : std::make_unique<Account>()) {
  begin();
}

void Trainer::begin() {
  check_ranks(recipe_, world_.size());
  const ReferenceCost plain_rows = reference_cost(recipe_, machine_lacks);
  check_reference_cost(plain_rows, recipe_.kernels.allow_reference);
  if (!plain_rows.ops.empty()) account_->say(plain_rows.to_string());
  double ended = account_->open({.hardware = hardware_of(recipe_, options_.recipe_folder),
                                 .price = price_of(recipe_.budget),
                                 .checkpoints = checkpoints_,
                                 .begin_anew = options_.begin_anew,
                                 .from_older = options_.from_older})
                     ? 1.0
                     : 0.0;
  world_.broadcast(view_of(&ended, DType::f64, {1}), 0);
  try {
    resources_ = std::make_unique<RunResources>(recipe_, ranks_sharing_cores(world_, Workers::cores_name()));
    load(ended != 0);
  } catch (const std::exception& error) {
    if (ended == 0) account_->failed(as_error(error));
    throw;
  }
}

CheckpointNotice Trainer::notice() {
  return [this](const std::string& text) { account_->say(text); };
}

// The same on every rank; empty where there is none.
std::string Trainer::newest_checkpoint() {
  std::string newest;
  if (leads()) newest = checkpoints_.newest(notice()).value_or("").string();
  const LongerWait waiting(world_, kLongestFileWork);
  return broadcast_text(world_, newest);
}

// Model, optimizer and data as the newest sound checkpoint left them, or as the recipe begins them.
void Trainer::load(bool ended) {
  const std::string newest = newest_checkpoint();
  if (!newest.empty()) resume(newest);
  over_ = ended && !newest.empty() && horizon_reached(recipe_, state_);
  if (over_) {
    return account_->say(fmt::format("{}: done at step {}; nothing is left to train", recipe_.run.name, state_.step));
  }
  const int groups = reduction_groups(recipe_, state_, world_.size());
  const bool fresh = state_.reduction_groups == 0;
  state_.reduction_groups = groups;
  state_.recipe = canonical_text(recipe_);
  if (fresh) resources_->model().initialise(recipe_.run.seed);
  resources_->model().prepare();
  engine_ = std::make_unique<Engine>(
      recipe_, EngineParts{resources_->model(), resources_->optimizer(), resources_->stream()}, world_, groups, meter_);
  engine_->guard().restore(state_.guard);
  enter_phase(state_.phase);

  guess_evaluation();
  account_->start({.model = resources_->model().config(),
                   .guessed_checkpoint_seconds = resources_->guessed_checkpoint_seconds(),
                   .fresh = fresh,
                   .allow_schedule_over = options_.allow_recipe_change});
  saved_at_ = meter_.elapsed_seconds();
  first_step_ = state_.step;
  meter_.enter(Category::idle);
}

// What the last evaluation will take, until one has been measured.
void Trainer::guess_evaluation() {
  if (!evaluator_ || !account_->guesses_evaluation()) return;
  const Meter::Scope timing(meter_, Category::evaluation);
  account_->guess_evaluation(evaluator_->estimate_seconds(stop_requested));
}

void Trainer::resume(const fs::path& checkpoint) {
  const CheckpointReader reader(checkpoint);
  state_ = training_state_from_json(reader.state_json(), checkpoint.string());
  if (state_.phase >= static_cast<int>(recipe_.phases.size())) {
    fail(ExitCode::bad_recipe, "{}: the run is in phase {}, the recipe has only {}", checkpoint.string(),
         state_.phase + 1, recipe_.phases.size());
  }
  if (!options_.allow_recipe_change)
    check_resume(parse_recipe_text(state_.recipe, checkpoint.string()).recipe, recipe_);
  load_weights(reader, resources_->model());
  load_optimizer(reader, resources_->optimizer());
  saved_step_ = state_.step;
}

void Trainer::enter_phase(int phase) {
  const bool next = phase != state_.phase;
  const bool going_on = !next && !state_.data_plan.empty();
  if (next) {
    state_.phase = phase;
    state_.phase_steps = 0;
    state_.phase_samples = 0;
    engine_->guard().forget();
    state_.guard = engine_->guard().state();
  }
  feed_.reset();
  loader_ = resources_->train_loader(phase);
  if (going_on) loader_->check_plan(state_.data_plan);
  state_.data_plan = loader_->plan();
  const PhaseSpec& spec = recipe_.phases[static_cast<std::size_t>(phase)];
  plan_.emplace(spec, state_.reduction_groups, world_.size());
  feed_ = std::make_unique<LoaderFeed>(*loader_, *plan_, state_.phase_samples, world_.rank(), recipe_.data.prefetch);
  evaluator_.reset();
  std::vector<std::unique_ptr<Loader>> held_out = resources_->validation_loaders(phase);
  if (!held_out.empty()) {
    evaluator_ = std::make_unique<Evaluator>(resources_->model(), world_, std::move(held_out), recipe_.evaluation,
                                             spec.micro_batch);
  }
  if (next) account_->entered_phase(spent());
}

}  // namespace shoestring
