// What surrounds the training loop: recording, saving, going back, evaluating.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/training/model_files.h"
#include "core/training/signals.h"
#include "core/training/trainer.h"
#include "kernels/base/memory.h"

namespace shoestring {

namespace fs = std::filesystem;

void Trainer::record(const StepOutcome& outcome) {
  for (int format = 0; format < kRateFormats; ++format) {
    const auto which = static_cast<RateFormat>(format);
    flops_[which] += flops_per_token_[which] * outcome.batch.tokens;
  }
  const AttemptProgress progress = attempt_progress();
  if (!leads()) return;
  cap_->step_took(outcome.seconds, outcome.batch.tokens);
  note_judgement(outcome.judgement);
  if (!variants_.empty()) {
    ledger_->variants(variants_);
    std::string text = "kernels:";
    for (const auto& [op, variant] : variants_) text += fmt::format(" {}={}", op, variant);
    announce(text);
    variants_.clear();
  }
  if (ledger_->heartbeat_due()) ledger_->heartbeat(progress);
  const StepMetrics metrics = metrics_of(outcome);
  metrics_->step(metrics);
  progress_line_.update(progress_text({.step = state_.step,
                                       .loss = state_.loss,
                                       .tokens_per_second = metrics.tokens_per_second,
                                       .spent_gpu_hours = metrics.gpu_hours,
                                       .cap_gpu_hours = cap_->cap().gpu_hours,
                                       .usd = metrics.usd,
                                       .seconds_left = seconds_left(),
                                       .phase = phase().name}),
                        clock_.monotonic_seconds());
}

StepMetrics Trainer::metrics_of(const StepOutcome& outcome) const {
  const PassResult& batch = outcome.batch;
  StepMetrics metrics;
  metrics.step = state_.step;
  metrics.phase = phase().name;
  metrics.tokens = state_.tokens;
  metrics.sequences = outcome.sequences;
  metrics.loss = state_.loss;
  metrics.mtp_loss = batch.further_tokens > 0 ? batch.further_loss / batch.further_tokens : 0;
  metrics.gradient_norm = outcome.gradient_norm;
  metrics.learning_rate = outcome.learning_rate;
  const Judgement& judgement = outcome.judgement;
  switch (judgement.verdict) {
    case StepVerdict::apply:
      if (outcome.gradient_norm > judgement.norm_limit) metrics.clipped_to = judgement.norm_limit;
      metrics.stands_out = judgement.why;
      break;
    case StepVerdict::go_back: metrics.went_back = judgement.why; break;
    case StepVerdict::skip:
    case StepVerdict::end: metrics.skipped = judgement.why; break;
  }
  metrics.clipped_steps = state_.guard.clipped;
  metrics.skipped_steps = state_.guard.skipped;
  if (!batch.router_counts.empty()) {
    const std::int64_t experts = batch.router_counts.shape()[1];
    for (std::int64_t layer = 0; layer < batch.router_counts.shape()[0]; ++layer) {
      const std::int64_t* counts = batch.router_counts.as<std::int64_t>() + layer * experts;
      double sum = 0;
      for (std::int64_t e = 0; e < experts; ++e) sum += static_cast<double>(counts[e]);
      const double most = static_cast<double>(*std::max_element(counts, counts + experts));
      if (sum > 0) {
        metrics.expert_overload = std::max(metrics.expert_overload, most * static_cast<double>(experts) / sum - 1.0);
      }
    }
  }
  const std::array<std::pair<const char*, const QuantizeCounts*>, 3> classes = {{
      {"activation", &batch.precision.activations},
      {"weight", &batch.precision.weights},
      {"gradient", &batch.precision.gradients},
  }};
  for (const auto& [name, counts] : classes) {
    if (counts->elements == 0) continue;
    const auto share = [all = static_cast<double>(counts->elements)](std::int64_t part) {
      return static_cast<double>(part) / all;
    };
    metrics.shares.emplace_back(fmt::format("saturated.{}", name), share(counts->saturated));
    metrics.shares.emplace_back(fmt::format("underflowed.{}", name), share(counts->underflowed));
  }
  metrics.attempt = ledger_->attempt();
  metrics.unix_seconds = clock_.unix_seconds();
  metrics.step_seconds = outcome.seconds;
  metrics.tokens_per_second = outcome.seconds > 0 ? batch.tokens / outcome.seconds : 0;
  metrics.gpu_hours = cap_->spent_gpu_hours(meter_.elapsed_seconds());
  metrics.usd = price_ ? price_->usd(metrics.gpu_hours) : 0;
  metrics.memory_bytes = memory_use(DeviceKind::cpu).peak_bytes;
  const double rank_seconds = outcome.seconds * world_.size();
  for (int format = 0; format < kRateFormats; ++format) {
    const auto which = static_cast<RateFormat>(format);
    const double peak = hardware_.peak_flops[which];
    if (peak <= 0 || flops_per_token_[which] <= 0 || rank_seconds <= 0) continue;
    metrics.utilisation.emplace_back(name(which), flops_per_token_[which] * batch.tokens / rank_seconds / peak);
  }
  return metrics;
}

// What stood out, and what was done about it: on the terminal and in the ledger.
void Trainer::note_judgement(const Judgement& judgement) {
  if (judgement.why.empty()) return;
  const auto tell = [&](const char* about, const std::string& done) {
    const std::string text = fmt::format("step {}: {}; {}", state_.step, judgement.why, done);
    ledger_->note(about, text);
    announce(text);
  };
  switch (judgement.verdict) {
    case StepVerdict::apply: return tell("clipped", "the step was taken, clipped");
    case StepVerdict::go_back: return tell("went back", "other data does not help: back to the last checkpoint");
    case StepVerdict::skip:
    case StepVerdict::end: return tell("skipped", "the step was skipped");
  }
}

// To the weights of the newest sound checkpoint and past the data since then. Saved at once: the decision holds for
// every later start, wherever it comes from.
void Trainer::go_back() {
  std::string from;
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    from = newest_checkpoint();
    if (!from.empty()) {
      const CheckpointReader reader(from);
      const TrainingState then = training_state_from_json(reader.state_json(), from);
      Engine::Change change(*engine_);
      load_weights(reader, resources_->model());
      load_optimizer(reader, resources_->optimizer());
      resources_->model().prepare();
      state_.updates = then.updates;
      engine_->guard().went_back(then.phase == state_.phase ? then.guard : GuardState{});
      change.kept();
    } else {
      engine_->guard().stayed();
    }
  }
  state_.guard = engine_->guard().state();
  if (from.empty()) return announce(fmt::format("step {}: no checkpoint is there: the step was skipped", state_.step));
  announce(fmt::format("step {}: went back to the weights of {}, past the data since then", state_.step, from));
  save();
}

void Trainer::save() { save(recipe_.checkpoint.keep); }

void Trainer::save(int keep) {
  if (saved_step_ == state_.step) return;
  const double begin = meter_.elapsed_seconds();
  {
    const Meter::Scope timing(meter_, Category::checkpoint);
    shared_error_ = true;  // every rank has the same weights
    engine_->check_finite(state_.step);
    shared_error_ = false;
    const LongerWait waiting(world_, kLongestFileWork);
    if (leads()) write_checkpoint(begin, keep);
    world_.barrier();
  }
  saved_step_ = state_.step;
  saved_at_ = meter_.elapsed_seconds();
  const AttemptProgress progress = attempt_progress();
  if (leads()) ledger_->checkpoint(commit_of(begin), progress);
}

// Rank 0's part of it.
void Trainer::write_checkpoint(double begin, int keep) {
  saving_ = true;
  const fs::path folder = checkpoints_.save(
      state_.step,
      checkpoint_content(resources_->model(), resources_->optimizer(), resources_->tokenizer(), to_json(state_)), keep,
      [this](const std::string& text) {
        ledger_->note("checkpoints", text);
        announce(text);
      });
  saving_ = false;
  const double took = meter_.elapsed_seconds() - begin;
  cap_->measured(Ending::checkpoint, took);
  announce(fmt::format("saved {} in {:.2f} s", folder.string(), took));
}

CheckpointCommit Trainer::commit_of(double begin) const {
  return {.step = state_.step,
          .tokens = state_.tokens,
          .name = fmt::format("step_{:08}", state_.step),
          .bytes = resources_->model().memory().parameters + resources_->optimizer().state_bytes(),
          .took_seconds = saved_at_ - begin};
}

// A signal makes it futile; the cap only makes it shorter. After the `last` one no step comes.
bool Trainer::evaluate(bool last) {
  const double begin = meter_.elapsed_seconds();
  double most_seconds = 0;
  if (leads()) most_seconds = cap_->seconds_for_evaluation(begin, saved_step_ == state_.step, last);
  if (world_.size() > 1) world_.broadcast(view_of(&most_seconds, DType::f64, {1}), 0);
  Evaluator::Outcome outcome;
  {
    const Meter::Scope timing(meter_, Category::evaluation);
    outcome = evaluator_->run(state_.step, stop_requested, most_seconds);
  }
  if (outcome.stopped) return false;
  evaluated_step_ = state_.step;
  const AttemptProgress progress = attempt_progress();
  if (!leads()) return true;
  const double took = meter_.elapsed_seconds() - begin;
  cap_->measured(Ending::evaluation, took);
  const EvaluationMetrics& metrics = outcome.metrics;
  if (!outcome.whole) {
    const std::string text = fmt::format("step {}: evaluation cut to {} of {} held-out sequences, spread evenly",
                                         state_.step, outcome.sequences, outcome.all_sequences);
    ledger_->note("evaluation", text);
    announce(text);
  }
  if (metrics.tokens == 0) return true;
  ledger_->evaluation({.step = metrics.step,
                       .tokens = metrics.tokens,
                       .loss = metrics.loss,
                       .bits_per_byte = metrics.bits_per_byte,
                       .took_seconds = took,
                       .sequences = outcome.sequences,
                       .all_sequences = outcome.all_sequences},
                      progress);
  metrics_->evaluation(metrics, clock_.unix_seconds());
  announce(fmt::format("step {}: held-out loss {:.4f}, {:.4f} bits per byte ({} tokens, {:.2f} s)", metrics.step,
                       metrics.loss, metrics.bits_per_byte, metrics.tokens, took));
  return true;
}

// Cumulative over this attempt, seconds of this rank.
AttemptProgress Trainer::progress_of_rank() const {
  AttemptProgress progress;
  progress.step = state_.step;
  progress.tokens = state_.tokens;
  progress.phase = phase().name;
  progress.seconds = meter_.read();
  progress.flops = flops_;
  progress.loss = state_.loss;
  progress.clipped = state_.guard.clipped;
  progress.skipped = state_.guard.skipped;
  progress.returns = state_.guard.returns;
  return progress;
}

// Collective, so that every rank's seconds are in it.
AttemptProgress Trainer::attempt_progress() {
  AttemptProgress progress = progress_of_rank();
  if (world_.size() > 1) {
    world_.all_reduce(view_of(progress.seconds.seconds.data(), DType::f64, {kCategories}));
  }
  return progress;
}

// Where other ranks cannot be asked: they are taken to be as we are.
AttemptProgress Trainer::progress_alone() const {
  AttemptProgress progress = progress_of_rank();
  for (double& seconds : progress.seconds.seconds) seconds *= world_.size();
  return progress;
}

double Trainer::seconds_left() const {
  const double step_seconds = cap_->steps().typical();
  const double by_budget = cap_->remaining_seconds(meter_.elapsed_seconds());
  double by_horizon = std::numeric_limits<double>::infinity();
  if (recipe_.schedule.horizon != Horizon::budget) {
    const double done = progress();
    if (done <= 0) return -1;
    by_horizon = step_seconds * static_cast<double>(state_.step) * (1 - done) / done;
  }
  const double left = std::min(by_budget, by_horizon);
  return std::isfinite(left) ? std::max(0.0, left) : -1;
}

void Trainer::announce(const std::string& text) {
  if (leads()) progress_line_.say(text);
}

}  // namespace shoestring
