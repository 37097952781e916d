#include "core/training/account.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>

#include "core/budget/ledger_history.h"
#include "core/budget/life_sign.h"
#include "core/budget/planner.h"
#include "core/budget/report.h"
#include "core/budget/run_curve.h"
#include "core/budget/untold.h"
#include "core/budget/warning.h"
#include "core/model/accounting.h"
#include "core/optimizer/warm_up.h"
#include "core/recipe/explain.h"
#include "core/training/account_texts.h"
#include "core/training/flops_tally.h"
#include "core/training/going_on.h"
#include "core/training/live_view.h"
#include "core/training/metrics.h"
#include "core/training/room.h"
#include "core/training/run_gauges.h"
#include "core/training/saved_work.h"
#include "core/training/step_metrics.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/host.h"
#include "kernels/base/memory.h"
#include "kernels/base/variant.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

/// What whoever holds the ledger replaces as a whole, in RUN.
constexpr std::array<std::string_view, 5> kReplaced = {"recipe.recipe", "trace.json", kMetricsFile, kGaugesFile,
                                                       kPlanFile};

class LeadingAccount final : public Account {
 public:
  explicit LeadingAccount(const AccountArgs& args)
      : args_(args), view_(args.recipe.run, args.ranks, args.directory, args.out) {}
  ~LeadingAccount() override { observe_variants({}); }

  bool open(const AccountOpening& opening) override;
  void start(const AttemptFacts& facts) override;
  void say(const std::string& text) override { view_.say(text); }
  void note(const char* about, const std::string& text) override {
    ledger_->note(about, text);
    say(text);
  }
  void working(const Progress& progress) override { view_.working(progress, args_.clock.monotonic_seconds()); }
  Decision decide(const Standing& at) override;
  double seconds_for_evaluation(bool saved, bool last) const override {
    return cap_->seconds_for_evaluation(elapsed(), saved, last);
  }
  bool guesses_evaluation() const override { return cap_->wants_guess(Ending::evaluation); }
  void guess_evaluation(double seconds) override {
    cap_->guess(Ending::evaluation, seconds);
    step_from_ = elapsed();
  }
  double seconds_for_suites(bool saved, bool last) const override {
    return cap_->seconds_for_suites(elapsed(), saved, last);
  }
  bool guesses_suites() const override { return !cap_->is_measured(Ending::suites); }
  void guess_suites(double seconds) override {
    cap_->guess(Ending::suites, seconds);
    step_from_ = elapsed();
  }
  void stepped(const StepOutcome& outcome, const CategorySeconds& spent) override;
  void piped(const std::optional<PipelineUse>& use) override {
    if (use) ledger_->pipeline(*use);
  }
  void read(const DataReading& reading) override { ledger_->data(reading); }
  void entered_phase(const CategorySeconds& spent) override;
  void saved(const CheckpointCommit& commit, const CategorySeconds& spent) override;
  void evaluated(const Evaluator::Outcome& outcome, double took_seconds, const CategorySeconds& spent) override;
  void answered(const SuiteEvaluator::Outcome& outcome, double took_seconds, const CategorySeconds& spent) override;
  void ended(Stop stop, const fs::path& folder, const CategorySeconds& spent) override;
  void failed(const Error& error) noexcept override;
  CategorySeconds spent_alone() const override;
  double reserve_seconds() const override { return cap_->reserve_seconds(); }
  double remaining_seconds() const override { return cap_->remaining_seconds(elapsed()); }

 private:
  AttemptStart attempt_start(std::int64_t from_step, const ModelConfig* model) const;
  AttemptProgress progress(const CategorySeconds& spent) const;
  StepMetrics metrics_of(const StepOutcome& outcome) const;
  void warn(const Spent& now);
  void note_judgement(const Judgement& judgement);
  void note_variants();
  void store_report();
  double seconds_left() const;
  double elapsed() const { return args_.meter.elapsed_seconds(); }
  const PhaseSpec& phase() const { return args_.recipe.phases[static_cast<std::size_t>(args_.state.phase)]; }

  AccountArgs args_;
  LiveView view_;
  Hardware hardware_;
  std::optional<Price> price_;
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<LifeSign> life_sign_;
  std::unique_ptr<CapKeeper> cap_;
  Spent before_;  // by earlier attempts
  std::unique_ptr<CapWarnings> warnings_;
  std::unique_ptr<MetricsLog> metrics_;
  std::map<std::string, std::string> variants_;  // chosen, and not yet in the ledger
  bool goes_on_ = false;                         // from a checkpoint; from start() on
  double step_from_ = 0;                         // when what came before the coming step was over
  std::optional<ModelConfig> model_;             // from start() on
  Device device_;                                // likewise
  FlopsTally flops_;                             // done in this attempt
  std::vector<double> violations_;               // of the last step's experts
};

// ---- How an attempt begins.

bool LeadingAccount::open(const AccountOpening& opening) {
  hardware_ = opening.hardware;
  price_ = opening.price;
  const Recipe& recipe = args_.recipe;
  if (opening.begin_anew) {
    const fs::path old = set_aside(args_.directory, args_.clock);
    if (!old.empty()) say(fmt::format("{}: begun anew; the run before is kept in {}", recipe.run.name, old.string()));
  }
  make_directories(args_.directory);
  ledger_ = std::make_unique<Ledger>(args_.directory, args_.clock);
  // Nobody else writes these while the ledger is held.
  for (const std::string_view name : kReplaced) remove_abandoned(args_.directory / name);
  const LedgerHistory& history = ledger_->history();
  check_saved_work(history, opening.checkpoints, opening.from_older);
  if (history.damaged_lines > 0) {
    say(fmt::format("{} damaged lines of {} could not be read: what they charged may be missing from the bill",
                    history.damaged_lines, (args_.directory / kLedgerFile).string()));
  }
  const bool over = history.done();
  observe_variants([this](std::string_view op, std::string_view variant) { variants_[std::string(op)] = variant; });
  before_ = history.spent(price_, hardware_.watts);
  cap_ = std::make_unique<CapKeeper>(cap_of(recipe.budget, hardware_, before_), args_.ranks,
                                     history.charged_gpu_seconds(), recipe.evaluation.cap_share, args_.head_start);
  warnings_ = std::make_unique<CapWarnings>(warn_shares(recipe.budget), cap_->cap(), before_.gpu_hours,
                                            opening.warning_command);
  if (!over) cap_->check_startable(elapsed());  // where nothing is left to train, nothing need fit
  // A process that was killed between the ledger's last line and its report left none.
  if (over && type_of(args_.directory / "report.json") == fs::file_type::not_found) store_report();
  // Of a run that goes on, start() knows which phases are behind.
  if (!over) history.attempts.empty() ? check_inputs(recipe) : check_inputs(recipe.data);
  // From here on an attempt is charged that dies of want of memory, say. One that may find nothing left to train does
  // not become an attempt before it knows.
  if (!over) ledger_->begin(attempt_start(-1, nullptr));
  // Not before: a start that is refused leaves the sign of the attempt before, which that one's bill rests on.
  life_sign_ = std::make_unique<LifeSign>(args_.directory, ledger_->attempt(), args_.clock);
  if (!life_sign_->trouble().empty()) note("life sign", life_sign_->trouble());
  return over;
}

void LeadingAccount::start(const AttemptFacts& facts) {
  const TrainingState& state = args_.state;
  const Recipe& recipe = args_.recipe;
  model_ = facts.model;
  device_ = facts.device;
  flops_.enter(*model_, recipe, phase());
  cap_->guess(Ending::checkpoint, facts.guessed_checkpoint_seconds);
  cap_->check_startable(elapsed());
  check_room(args_.directory, facts.room, facts.checkpoint, facts.has_checkpoint);
  if (!facts.fresh) check_phase_inputs(recipe, state.phase);  // those behind may be gone
  if (!facts.allow_schedule_over) check_schedule_left(recipe, state, ledger_->history(), cap_->cap());
  // Not before the run has taken this recipe.
  replace_file(args_.directory / "recipe.recipe", standalone_text(recipe));
  const std::string untold =
      untold_bill(ledger_->history(), read_curve(args_.directory / kMetricsFile), facts.fresh ? -1 : state.step);
  ledger_->begin(attempt_start(state.step, &*model_));
  if (!untold.empty()) note(kBillNote, untold);
  goes_on_ = !facts.fresh;
  metrics_ =
      std::make_unique<MetricsLog>(args_.directory, state.step, recipe.run.tensorboard, args_.clock.unix_seconds());
  say(attempt_text(recipe.run.name, ledger_->attempt(), args_.ranks, facts.fresh, state.step));
  const std::string missing = missing_metrics_text(metrics_->missing_steps(), state.step);
  if (!missing.empty()) note("metrics", missing);
  step_from_ = elapsed();
}

AttemptStart LeadingAccount::attempt_start(std::int64_t from_step, const ModelConfig* model) const {
  AttemptStart start{.run = args_.recipe.run.name,
                     .project = args_.recipe.run.project,
                     .ranks = args_.ranks,
                     .head_start_gpu_seconds = args_.head_start.gpu_seconds,
                     .host = host_name(),
                     .pid = getpid(),
                     .recipe_hash = recipe_hash(args_.recipe),
                     .build = SHOESTRING_BUILD,
                     .variants = variants_,
                     .from_step = from_step,
                     .from_tokens = args_.state.tokens,
                     .cap = cap_->cap(),
                     .price = price_,
                     .hardware = hardware_};
  if (model != nullptr) {
    start.parameters = count_parameters(*model).total;
    start.active_parameters = count_parameters(*model).active;
    start.flops_per_token =
        count_flops(*model, args_.recipe.precision, phase().sequence, lora_of(args_.recipe, phase())).training();
  }
  return start;
}

// ---- What comes next.

Decision LeadingAccount::decide(const Standing& at) {
  const Decision decision = shoestring::decide(args_.recipe, at, elapsed(), *cap_);
  if (decision.horizon) {
    ledger_->horizon(*decision.horizon);
    const auto steps = static_cast<double>(steps_in_all(*decision.horizon));
    const std::string unfinished = unfinished_warmup(args_.recipe, spread_over_phases(args_.recipe, steps));
    if (at.state.decisions.empty() && !unfinished.empty()) say("as fast as it is now: " + unfinished);
  }
  if (decision.stop == Stop::budget || decision.stop == Stop::job || decision.stop == Stop::job_too_short) {
    say(fmt::format("{}: the next step and what must follow no longer fit",
                    cap_->key_of(decision.stop == Stop::budget ? CapLimit::run : CapLimit::job)));
  }
  return decision;
}

// ---- What was done.

AttemptProgress LeadingAccount::progress(const CategorySeconds& spent) const {
  const TrainingState& state = args_.state;
  return {.step = state.step,
          .tokens = state.tokens,
          .learned_tokens = state.learned_tokens,
          .phase = phase().name,
          .seconds = spent,
          .flops = flops_.done(),
          .loss = state.loss,
          .clipped = state.guard.clipped,
          .skipped = state.guard.skipped,
          .returns = state.guard.returns};
}

CategorySeconds LeadingAccount::spent_alone() const {
  CategorySeconds spent = args_.meter.read();
  for (double& seconds : spent.seconds) seconds *= args_.ranks;
  spent[Category::startup] += args_.head_start.gpu_seconds;
  return spent;
}

void LeadingAccount::entered_phase(const CategorySeconds& spent) {
  flops_.enter(*model_, args_.recipe, phase());
  ledger_->phase(phase().name, progress(spent));
  cap_->enter_phase();
  step_from_ = elapsed();
}

void LeadingAccount::stepped(const StepOutcome& outcome, const CategorySeconds& spent) {
  flops_.add(outcome.batch.text_tokens);  // what is only read costs as much
  violations_ = max_violations(outcome.batch.router_counts);
  const double now = elapsed();
  cap_->step_took(now - step_from_, outcome.batch.text_tokens);
  const StepMetrics metrics = metrics_of(outcome);
  metrics_->step(metrics);  // first: a ledger that cannot be written ends the run, which saves this step on its way out
  note_judgement(outcome.judgement);
  note_variants();
  if (ledger_->heartbeat_due()) ledger_->heartbeat(progress(spent));
  warn({.gpu_hours = metrics.gpu_hours, .usd = metrics.usd, .kwh = 0});
  const double cap = cap_->cap().gpu_hours;
  view_.stepped(metrics,
                {.cap_gpu_hours = cap,
                 .usd_left = price_ ? price_->usd(cap - metrics.gpu_hours) : 0,
                 .seconds_left = seconds_left()},
                args_.clock.monotonic_seconds());
  step_from_ = now;
}

void LeadingAccount::warn(const Spent& now) {
  const std::optional<CapWarnings::Told> told = warnings_->passed(args_.recipe.run.name, now);
  if (!told) return;
  note("budget", told->line);
  if (!told->command_error.empty()) say("the command for warnings could not be started: " + told->command_error);
}

StepMetrics LeadingAccount::metrics_of(const StepOutcome& outcome) const {
  StepMetrics metrics = step_metrics(outcome, args_.state, phase().name);
  const double tokens = outcome.batch.text_tokens;
  metrics.attempt = ledger_->attempt();
  metrics.unix_seconds = args_.clock.unix_seconds();
  metrics.step_seconds = outcome.seconds;
  metrics.tokens_per_second = outcome.seconds > 0 ? tokens / outcome.seconds : 0;
  metrics.gpu_hours = cap_->spent_gpu_hours(elapsed());
  metrics.usd = price_ ? before_.usd + price_->usd(metrics.gpu_hours - before_.gpu_hours) : 0;
  metrics.memory_bytes = memory_use(device_.kind).peak_bytes;
  metrics.utilisation = flops_.utilisation(tokens, outcome.seconds * args_.ranks, hardware_.peak_flops);
  return metrics;
}

void LeadingAccount::note_judgement(const Judgement& judgement) {
  if (judgement.why.empty()) return;
  const Notice notice = judgement_notice(args_.state.step, judgement);
  note(notice.about, notice.text);
}

void LeadingAccount::note_variants() {
  if (variants_.empty()) return;
  ledger_->variants(variants_);
  say(variants_text(variants_));
  const std::string other = goes_on_ ? other_rows_text(ledger_->history(), variants_) : std::string();
  if (!other.empty()) note("kernels", other);
  variants_.clear();
}

void LeadingAccount::saved(const CheckpointCommit& commit, const CategorySeconds& spent) {
  cap_->measured(Ending::checkpoint, commit.took_seconds);
  if (!violations_.empty()) ledger_->experts(violations_);
  ledger_->checkpoint(commit, progress(spent));
  say(fmt::format("saved {} in {:.2f} s", (args_.directory / "checkpoints" / commit.name).string(),
                  commit.took_seconds));
  step_from_ = elapsed();
}

void LeadingAccount::evaluated(const Evaluator::Outcome& outcome, double took_seconds, const CategorySeconds& spent) {
  cap_->measured(Ending::evaluation, took_seconds);
  step_from_ = elapsed();
  const EvaluationMetrics& metrics = outcome.metrics;
  if (!outcome.whole) {
    note("evaluation", cut_evaluation_text(args_.state.step, outcome.sequences, outcome.all_sequences));
  }
  if (metrics.tokens == 0) return;
  ledger_->evaluation({.step = metrics.step,
                       .tokens = metrics.tokens,
                       .loss = metrics.loss,
                       .bits_per_byte = metrics.bits_per_byte,
                       .took_seconds = took_seconds,
                       .sequences = outcome.sequences,
                       .all_sequences = outcome.all_sequences},
                      progress(spent));
  metrics_->evaluation(metrics, args_.clock.unix_seconds());
  view_.evaluated(metrics);
  say(held_out_text(metrics, took_seconds));
}

void LeadingAccount::answered(const SuiteEvaluator::Outcome& outcome, double took_seconds,
                              const CategorySeconds& spent) {
  cap_->measured(Ending::suites, took_seconds);
  step_from_ = elapsed();
  if (!outcome.whole) note("evaluation", cut_suites_text(args_.state.step, outcome.requests, outcome.all_requests));
  if (outcome.requests == 0) return;
  const SuiteResult result{.step = args_.state.step,
                           .phase = phase().name,
                           .requests = outcome.requests,
                           .all_requests = outcome.all_requests,
                           .took_seconds = took_seconds,
                           .scores = outcome.scores};
  ledger_->suites(result, progress(spent));
  metrics_->suites(result, args_.clock.unix_seconds());
  for (const SuiteScore& score : result.scores) say(score_text(result.step, score));
}

// To the planned end; below 0: not known yet.
double LeadingAccount::seconds_left() const {
  const double by_budget = cap_->remaining_seconds(elapsed());
  double by_horizon = std::numeric_limits<double>::infinity();
  if (args_.recipe.schedule.horizon != Horizon::budget) {
    const double done = progress_of(args_.recipe, args_.state);
    if (done <= 0) return -1;
    by_horizon = cap_->steps().typical() * static_cast<double>(args_.state.step) * (1 - done) / done;
  }
  const double left = std::min(by_budget, by_horizon);
  return std::isfinite(left) ? std::max(0.0, left) : -1;
}

// ---- How an attempt ends.

void LeadingAccount::ended(Stop stop, const fs::path& folder, const CategorySeconds& spent) {
  const bool later = goes_on_later(stop);
  const char* const reason = later ? "preempted" : stop == Stop::budget ? "budget" : "done";
  ledger_->end(reason, static_cast<int>(later ? ExitCode::preempted : ExitCode::done), "", progress(spent));
  store_report();
  say(end_text(args_.recipe.run.name, stop, args_.state.step, folder));
}

void LeadingAccount::failed(const Error& error) noexcept {
  try {
    ledger_->end(error.code() == ExitCode::preempted ? "preempted" : "failed", static_cast<int>(error.code()),
                 error.what(), progress(spent_alone()));
    store_report();
  } catch (const std::exception& second) {  // a full disk, most likely: the first error is what matters
    say(fmt::format("the ledger could not be closed: {}", second.what()));
  }
}

// The ledger holds all of it: a report that could not be stored can be made again.
void LeadingAccount::store_report() {
  view_.ended();
  try {
    write_report(args_.directory, make_report(args_.directory));
  } catch (const std::exception& error) {
    say(fmt::format("the report could not be stored ({}); shoestring report {} makes it anew", error.what(),
                    args_.directory.string()));
  }
}

}  // namespace

std::unique_ptr<Account> leading_account(const AccountArgs& args) { return std::make_unique<LeadingAccount>(args); }

}  // namespace shoestring
