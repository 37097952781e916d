// How an attempt begins: ledger and budget first, then the model, the newest sound checkpoint and the data.
#include <unistd.h>

#include <array>
#include <limits>

#include "core/model/accounting.h"
#include "core/optimizer/learning_rate.h"
#include "core/recipe/explain.h"
#include "core/training/model_files.h"
#include "core/training/reference_cost.h"
#include "core/training/saved_work.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "kernels/base/file.h"
#include "kernels/base/variant.h"
#include "kernels/base/workers.h"
#include "kernels/variant_list.h"
#include "parallel/placement.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

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

// With a budget horizon the learning rate came down while the budget ran out.
constexpr double kScheduleOver = 0.95;

void check_schedule_left(const LedgerHistory& history, const Cap& cap, double progress, double rate) {
  if (progress < kScheduleOver) return;
  for (const AttemptHistory& attempt : history.attempts) {
    const double before = attempt.start.cap.gpu_hours;
    if (attempt.reason != "budget" || cap.gpu_hours <= before) continue;
    fail(ExitCode::bad_recipe,
         "the schedule of this run ended with its budget of {:.6g} GPU-hours (schedule.horizon = budget): under {:.6g} "
         "({}) further steps would all be taken at the learning rate of its end, {:.3g}. Begin a new run with the "
         "higher cap under another run.name, or go on all the same with --allow-recipe-change",
         before, cap.gpu_hours, cap.from, rate);
  }
}

}  // namespace

Trainer::Trainer(Recipe recipe, Communicator& world, const Clock& clock, TrainerOptions options)
    : recipe_(std::move(recipe)),
      world_(world),
      clock_(clock),
      options_(std::move(options)),
      meter_(clock),
      directory_(run_directory(recipe_)),
      checkpoints_(directory_ / "checkpoints"),
      progress_line_(options_.out, world.size() == 1) {
  begin();
}

Trainer::~Trainer() { observe_variants({}); }

void Trainer::begin() {
  check_ranks(recipe_, world_.size());
  const ReferenceCost plain_rows = reference_cost(recipe_, machine_lacks);
  check_reference_cost(plain_rows, recipe_.kernels.allow_reference);
  if (!plain_rows.ops.empty()) announce(plain_rows.to_string());
  hardware_ = hardware_of(recipe_, options_.recipe_folder);
  price_ = price_of(recipe_.budget);
  double ended = 0;
  if (leads()) {
    if (options_.begin_anew) set_old_run_aside();
    make_directories(directory_);
    ledger_ = std::make_unique<Ledger>(directory_, clock_);
    const LedgerHistory& history = ledger_->history();
    check_saved_work(history, checkpoints_, options_.from_older);
    if (history.damaged_lines > 0) {
      announce(fmt::format("{} damaged lines of {} could not be read: what they charged may be missing from the bill",
                           history.damaged_lines, (directory_ / kLedgerFile).string()));
    }
    ended = !history.attempts.empty() && history.attempts.back().reason == "done" ? 1.0 : 0.0;
    observe_variants([this](std::string_view op, std::string_view variant) { variants_[std::string(op)] = variant; });
    cap_ = std::make_unique<CapKeeper>(cap_of(recipe_.budget, hardware_), world_.size(), history.charged_gpu_seconds(),
                                       recipe_.evaluation.cap_share);
    cap_->check_startable(meter_.elapsed_seconds());
    // From here on an attempt is charged that dies of want of memory, say. One that may find nothing left to train does
    // not become an attempt before it knows.
    if (ended == 0) ledger_->begin(attempt_start(-1));
    // Not before: a start that is refused leaves the sign of the attempt before, which that one's bill rests on.
    life_sign_ = std::make_unique<LifeSign>(directory_, ledger_->attempt(), clock_);
  }
  world_.broadcast(view_of(&ended, DType::f64, {1}), 0);
  try {
    resources_ = std::make_unique<RunResources>(recipe_, ranks_sharing_cores(world_, Workers::cores_name()));
    load(ended != 0);
  } catch (const std::exception& error) {
    if (ended == 0) give_up(as_error(error));
    throw;
  }
}

void Trainer::set_old_run_aside() {
  const fs::path old = set_aside(directory_, clock_);
  if (!old.empty())
    announce(fmt::format("{}: begun anew; the run before is kept in {}", recipe_.run.name, old.string()));
}

// The same on every rank; empty where there is none.
std::string Trainer::newest_checkpoint() {
  std::string newest;
  if (leads()) newest = checkpoints_.newest([this](const std::string& text) { announce(text); }).value_or("").string();
  const LongerWait waiting(world_, kLongestFileWork);
  return broadcast_text(world_, newest);
}

// Model, optimizer and data as the newest sound checkpoint left them, or as the recipe begins them.
void Trainer::load(bool ended) {
  const std::string newest = newest_checkpoint();
  if (!newest.empty()) resume(newest);
  over_ = ended && !newest.empty() && horizon_reached(recipe_, state_);
  if (over_) {
    return announce(fmt::format("{}: done at step {}; nothing is left to train", recipe_.run.name, state_.step));
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

  if (!leads()) return;
  guess_evaluation();
  cap_->guess(Ending::checkpoint, resources_->guessed_checkpoint_seconds());
  cap_->check_startable(meter_.elapsed_seconds());
  if (recipe_.schedule.horizon == Horizon::budget && !options_.allow_recipe_change) {
    check_schedule_left(ledger_->history(), cap_->cap(), progress(),
                        learning_rate(recipe_.schedule, state_.updates + 1, progress()));
  }
  replace_file(directory_ / "recipe.recipe", state_.recipe);  // not before the run has taken this recipe
  ledger_->begin(attempt_start(state_.step));
  metrics_ = std::make_unique<MetricsLog>(directory_, state_.step, recipe_.run.tensorboard, clock_.unix_seconds());
  announce(fmt::format("{}: attempt {} on {} rank{}, {} from step {}", recipe_.run.name, ledger_->attempt(),
                       world_.size(), world_.size() == 1 ? "" : "s", fresh ? "beginning" : "going on", state_.step));
  saved_at_ = meter_.elapsed_seconds();
  first_step_ = state_.step;
  meter_.enter(Category::idle);
}

// What the last evaluation will take, until one has been measured.
void Trainer::guess_evaluation() {
  if (!evaluator_ || cap_->is_measured(Ending::evaluation)) return;
  const Meter::Scope timing(meter_, Category::evaluation);
  cap_->guess(Ending::evaluation, evaluator_->estimate_seconds(stop_requested));
}

AttemptStart Trainer::attempt_start(std::int64_t from_step) const {
  AttemptStart start{.run = recipe_.run.name,
                     .ranks = world_.size(),
                     .host = host_name(),
                     .pid = getpid(),
                     .recipe_hash = recipe_hash(recipe_),
                     .build = SHOESTRING_BUILD,
                     .variants = variants_,
                     .from_step = from_step,
                     .from_tokens = state_.tokens,
                     .cap = cap_->cap(),
                     .price = price_,
                     .hardware = hardware_};
  if (resources_ != nullptr) {
    const ModelConfig& config = resources_->model().config();
    start.parameters = count_parameters(config).total;
    start.active_parameters = count_parameters(config).active;
    start.flops_per_token = count_flops(config, recipe_.precision, phase().sequence).training();
  }
  return start;
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
  const FormatFlops flops =
      count_flops(resources_->model().config(), recipe_.precision, spec.sequence).training_by_format();
  flops_per_token_[RateFormat::fp64] = flops.f64;
  flops_per_token_[RateFormat::fp32] = flops.f32;
  flops_per_token_[RateFormat::bf16] = flops.bf16;
  flops_per_token_[RateFormat::fp8] = flops.fp8;
  evaluator_.reset();
  std::vector<std::unique_ptr<Loader>> held_out = resources_->validation_loaders(phase);
  if (!held_out.empty()) {
    evaluator_ = std::make_unique<Evaluator>(resources_->model(), world_, std::move(held_out), recipe_.evaluation,
                                             spec.micro_batch);
  }
  if (!next) return;
  const AttemptProgress progress = attempt_progress();
  if (leads()) ledger_->phase(spec.name, progress);
}

}  // namespace shoestring
