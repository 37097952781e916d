#include "core/training/evaluation.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numbers>

#include "core/training/stop_agreement.h"

#include "core/training/feed.h"

namespace shoestring {

Evaluator::Evaluator(Transformer& model, Mesh& mesh, std::vector<std::unique_ptr<Loader>> loaders,
                     const EvaluationSpec& spec, std::int64_t micro_batch, ScheduleChoice schedule)
    : model_(model), mesh_(mesh), micro_batch_(micro_batch), schedule_(schedule) {
  for (const auto& stage : model.stages()) stages_.push_back(std::make_unique<EvaluationStage>(*this, *stage));
  for (std::unique_ptr<Loader>& loader : loaders) {
    Part part;
    part.samples = loader->samples_per_epoch();
    part.all_tokens = static_cast<double>(loader->counts(0).tokens + loader->counts(0).dropped_tokens);
    if (spec.tokens > 0) {
      const std::int64_t wanted = (spec.tokens + loader->options().sequence - 1) / loader->options().sequence;
      part.samples = std::min(part.samples, wanted);
    }
    part.loader = std::move(loader);
    parts_.push_back(std::move(part));
  }
}

Evaluator::~Evaluator() = default;

/// A stage of the model as a forward schedule calls it.
class Evaluator::EvaluationStage final : public Stage {
 public:
  EvaluationStage(Evaluator& evaluator, TransformerStage& stage) : evaluator_(evaluator), stage_(stage) {}

  void forward(int microbatch, ConstTensorView input, TensorView output) override {
    if (evaluator_.hollow()) return;
    const auto index = static_cast<std::size_t>(microbatch);
    stage_.evaluate(*evaluator_.batches_[index], input, &evaluator_.losses_[index], output);
  }
  void backward_input(int, ConstTensorView, TensorView) override { fail(ExitCode::bug, "an evaluation goes backward"); }
  void backward_weight(int) override { fail(ExitCode::bug, "an evaluation goes backward"); }

 private:
  Evaluator& evaluator_;
  TransformerStage& stage_;
};

Pipeline& Evaluator::pipeline_of(int microbatches) {
  std::unique_ptr<Pipeline>& pipeline = pipelines_[microbatches];
  if (!pipeline) {
    std::vector<Stage*> stages;
    for (const auto& stage : stages_) stages.push_back(stage.get());
    const int ranks = mesh_.pipeline().size();
    const Schedule training = make_schedule(schedule_, ranks, 2 * ranks);  // which stages are where
    pipeline = std::make_unique<Pipeline>(forward_schedule(training, microbatches), mesh_.pipeline(), stages,
                                          model_.boundary());
  }
  return *pipeline;
}

// As in a pass (PassStops::own).
bool Evaluator::hollow() {
  if (hollow_ || may_stop_ == nullptr || mesh_.pipeline().size() == 1) return hollow_;
  double asked = may_stop_() ? 1 : 0;
  if (mesh_.expert().size() > 1) mesh_.expert().all_reduce(view_of(&asked, DType::f64, {1}), Reduction::max);
  hollow_ = asked != 0;
  return hollow_;
}

// Whoever has the last stage adds the sums of this data index's micro-batches in their places.
void Evaluator::evaluate(Wave wave, std::vector<Sums>& sums) {
  std::vector<Sums> looked(wave.size());
  losses_.assign(wave.size(), {});
  while (batches_.size() < wave.size()) batches_.push_back(model_.make_plain_micro_batch());
  for (std::size_t i = 0; i < wave.size(); ++i) {
    const Part& part = parts_[wave[i].part];
    const std::int64_t own = wave[i].number * mesh_.data().size() + mesh_.data().rank();
    const std::int64_t first = std::min(own, microbatches(part) - 1) * micro_batch_;
    const std::int64_t samples = std::min(micro_batch_, part.samples - first);
    const Batch batch = part.loader->fetch({first, samples});
    batches_[i]->fill(view_of(batch), static_cast<int>(i), model_.stream());
    looked[i] = {0, 0, static_cast<double>(batch.text_tokens), static_cast<double>(samples)};
  }
  Pipeline& run = pipeline_of(static_cast<int>(wave.size()));
  run.run();
  if (rank_of_stage(run.schedule()).back() != mesh_.pipeline().rank()) return;
  for (std::size_t i = 0; i < wave.size(); ++i) {
    if (wave[i].number * mesh_.data().size() + mesh_.data().rank() >= microbatches(parts_[wave[i].part])) continue;
    looked[i].loss = losses_[i].loss;
    looked[i].tokens = static_cast<double>(losses_[i].tokens);
    sums[place_of(wave[i])] += looked[i];
  }
}

/// Whether a rank has time for another micro-batch.
class Evaluator::Deadline {
 public:
  explicit Deadline(double most_seconds) : most_seconds_(most_seconds) {}

  /// Asked before each micro-batch; once true, true for ever.
  bool passed() {
    if (agreed_) return passed_;
    turn_began_ = seconds();
    passed_ = passed_ || turn_began_ + longest_ > most_seconds_;
    return passed_;
  }
  /// One rank's is everybody's.
  void agree(Communicator& world) {
    double passed_here = passed() ? 1 : 0;
    world.all_reduce(view_of(&passed_here, DType::f64, {1}), Reduction::max);
    agreed_ = true;
    passed_ = passed_here != 0;
  }
  /// After each.
  void took_turn() {
    longest_ = std::max(longest_, seconds() - turn_began_);
    agreed_ = false;
  }
  bool has_passed() const { return passed_; }

 private:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

  double most_seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double turn_began_ = 0;
  double longest_ = 0;
  bool passed_ = false;
  bool agreed_ = false;  // upon this turn
};

Evaluator::Sums& Evaluator::Sums::operator+=(const Sums& other) {
  loss += other.loss;
  tokens += other.tokens;
  text += other.text;
  samples += other.samples;
  return *this;
}

std::vector<SpreadPlace> Evaluator::spread_turns() const {
  std::vector<std::int64_t> counts;
  for (const Part& part : parts_) counts.push_back(turns(part));
  return spread_evenly(counts);
}

// Of this data index's micro-batch among those of all sources, in order.
std::size_t Evaluator::place_of(const Turn& turn) const {
  std::int64_t place = turn.number * mesh_.data().size() + mesh_.data().rank();
  for (std::size_t part = 0; part < turn.part; ++part) place += microbatches(parts_[part]);
  return static_cast<std::size_t>(place);
}

// Of each source, in the order of its micro-batches. Each is known to one rank and zero on all others: exact.
std::vector<Evaluator::Sums> Evaluator::totals(std::vector<Sums>& sums) const {
  static_assert(sizeof(Sums) == kSums * sizeof(double));
  const auto count = kSums * static_cast<std::int64_t>(sums.size());
  if (mesh_.world().size() > 1 && count > 0) {
    mesh_.world().all_reduce(view_of(static_cast<void*>(sums.data()), DType::f64, {count}));
  }
  std::vector<Sums> totals(parts_.size());
  std::size_t place = 0;
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    for (std::int64_t i = 0; i < microbatches(parts_[part]); ++i) totals[part] += sums[place++];
  }
  return totals;
}

Evaluator::Outcome Evaluator::run(std::int64_t step, bool (*may_stop)(), double most_seconds) {
  StopAgreement stop(mesh_.world(), system_clock(), may_stop);
  stop.begin();
  may_stop_ = may_stop;
  hollow_ = false;
  Deadline deadline(most_seconds);
  Outcome outcome;
  std::int64_t count = 0;
  for (const Part& part : parts_) count += microbatches(part);
  std::vector<Sums> sums(static_cast<std::size_t>(count));
  const std::vector<Turn> turns = spread_turns();
  for (std::size_t at = 0; at < turns.size(); at += wave_turns()) {
    const Wave wave = Wave(turns).subspan(at, std::min(wave_turns(), turns.size() - at));
    outcome.stopped = stop.leave();
    if (outcome.stopped) break;
    if (collective()) deadline.agree(mesh_.world());
    if (deadline.passed()) continue;  // not away from the others, who may yet ask whether to leave
    const Turn& turn = wave.front();
    const bool none = turn.number * mesh_.data().size() + mesh_.data().rank() >= microbatches(parts_[turn.part]);
    if (none && !collective()) continue;
    evaluate(wave, sums);
    deadline.took_turn();
  }
  double nats = 0;
  double bytes = 0;
  double tokens = 0;
  double loss = 0;
  const std::vector<Sums> all = totals(sums);
  for (std::size_t index = 0; index < parts_.size(); ++index) {
    const Part& part = parts_[index];
    const Sums& total = all[index];
    const double unpredicted = total.text - total.tokens;
    nats += total.loss + unpredicted * std::log(static_cast<double>(part.loader->vocabulary_size()));
    bytes += static_cast<double>(part.loader->text_bytes(0)) * total.text / std::max(1.0, part.all_tokens);
    loss += total.loss;
    tokens += total.tokens;
    outcome.sequences += static_cast<std::int64_t>(total.samples);
    outcome.all_sequences += part.samples;
  }
  std::array<double, 2> ends = {deadline.has_passed() ? 1.0 : 0.0, hollow_ ? 1.0 : 0.0};
  mesh_.world().all_reduce(view_of(ends.data(), DType::f64, {2}), Reduction::max);
  may_stop_ = nullptr;
  outcome.stopped = outcome.stopped || ends[1] != 0;
  outcome.metrics = {.step = step,
                     .tokens = static_cast<std::int64_t>(tokens),
                     .loss = tokens > 0 ? loss / tokens : 0,
                     .bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / bytes : 0};
  outcome.whole = !outcome.stopped && ends[0] == 0;
  return outcome;
}

double Evaluator::estimate_seconds(bool (*may_stop)()) {
  constexpr std::int64_t kTimed = 3;
  double seconds = 0;
  std::int64_t count = 0;
  for (const Part& part : parts_) count += microbatches(part);
  std::vector<Sums> unread(static_cast<std::size_t>(count));
  for (std::size_t index = 0; index < parts_.size(); ++index) {
    const std::int64_t turns_of_part = turns(parts_[index]);
    if (turns_of_part == 0) continue;
    double took = 0;                              // the mean, slow moments included: an evaluation will have them too
    for (std::int64_t i = 0; i <= kTimed; ++i) {  // the first one warms caches and pages
      if (!collective() && may_stop()) return seconds;
      std::vector<Turn> wave;
      for (std::size_t turn = 0; turn < wave_turns(); ++turn) {
        wave.push_back({index, (i + static_cast<std::int64_t>(turn)) % turns_of_part});
      }
      const auto begin = std::chrono::steady_clock::now();
      evaluate(wave, unread);
      const std::chrono::duration<double> once = std::chrono::steady_clock::now() - begin;
      if (i > 0) took += once.count() / kTimed;
    }
    seconds += took * static_cast<double>(turns_of_part) / static_cast<double>(wave_turns());
  }
  return seconds;
}

}  // namespace shoestring
