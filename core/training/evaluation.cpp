#include "core/training/evaluation.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numbers>

namespace shoestring {

Evaluator::Evaluator(Transformer& model, Communicator& world, std::vector<std::unique_ptr<Loader>> loaders,
                     const EvaluationSpec& spec, std::int64_t micro_batch)
    : model_(model), world_(world), micro_batch_(micro_batch) {
  for (std::unique_ptr<Loader>& loader : loaders) {
    Part part;
    part.all_samples = loader->samples_per_epoch();
    part.samples = part.all_samples;
    if (spec.tokens > 0) {
      const std::int64_t wanted = (spec.tokens + loader->options().sequence - 1) / loader->options().sequence;
      part.samples = std::min(part.all_samples, wanted);
    }
    part.loader = std::move(loader);
    parts_.push_back(std::move(part));
  }
}

Evaluator::Sums Evaluator::evaluate(const Part& part, std::int64_t microbatch) {
  const std::int64_t first = microbatch * micro_batch_;
  const std::int64_t samples = std::min(micro_batch_, part.samples - first);
  const Batch batch = part.loader->fetch({first, samples});
  const LossSum loss = model_.evaluate({.inputs = batch.inputs,
                                        .targets = batch.targets,
                                        .segment_start = batch.segment_start,
                                        .sequence = batch.sequence});
  return {loss.loss, static_cast<double>(loss.tokens), static_cast<double>(batch.text_tokens),
          static_cast<double>(samples)};
}

/// When a rank ends its share early.
class Evaluator::Deadline {
 public:
  Deadline(bool (*may_stop)(), double most_seconds) : may_stop_(may_stop), most_seconds_(most_seconds) {}

  /// Asked before each micro-batch; once true, true for ever.
  bool passed() {
    const double now = seconds();
    longest_ = std::max(longest_, now - last_);
    last_ = now;
    stopped_ = stopped_ || may_stop_();
    late_ = late_ || now + longest_ > most_seconds_;
    return stopped_ || late_;
  }
  bool stopped() const { return stopped_; }
  bool late() const { return late_; }

 private:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

  bool (*may_stop_)();
  double most_seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double last_ = 0;
  double longest_ = 0;
  bool stopped_ = false;
  bool late_ = false;
};

Evaluator::Sums& Evaluator::Sums::operator+=(const Sums& other) {
  loss += other.loss;
  tokens += other.tokens;
  text += other.text;
  samples += other.samples;
  return *this;
}

// Micro-batch i is rank (i mod size)'s; the sums of all are added in order of i on every rank.
Evaluator::Sums Evaluator::evaluate_all(const Part& part, Deadline& deadline) {
  const std::int64_t count = microbatches(part);
  const std::int64_t mine = (count + world_.size() - 1) / world_.size();
  std::vector<Sums> own(static_cast<std::size_t>(mine));
  for (std::int64_t turn = 0; turn < mine && !deadline.passed(); ++turn) {
    const std::int64_t microbatch = turn * world_.size() + world_.rank();
    if (microbatch < count) own[static_cast<std::size_t>(turn)] = evaluate(part, microbatch);
  }
  std::vector<Sums> all(own.size() * static_cast<std::size_t>(world_.size()));
  static_assert(sizeof(Sums) == kSums * sizeof(double));
  world_.all_gather(view_of(static_cast<void*>(all.data()), DType::f64, {kSums * mine * world_.size()}),
                    view_of(static_cast<const void*>(own.data()), DType::f64, {kSums * mine}));
  Sums total;
  for (std::int64_t i = 0; i < count; ++i) {
    total += all[static_cast<std::size_t>((i % world_.size()) * mine + i / world_.size())];
  }
  return total;
}

Evaluator::Outcome Evaluator::run(std::int64_t step, bool (*may_stop)(), double most_seconds) {
  Deadline deadline(may_stop, most_seconds);
  double nats = 0;
  double bytes = 0;
  double tokens = 0;
  double loss = 0;
  for (const Part& part : parts_) {
    const Sums total = evaluate_all(part, deadline);
    const double unpredicted = total.text - total.tokens;
    nats += total.loss + unpredicted * std::log(static_cast<double>(part.loader->vocabulary_size()));
    bytes += static_cast<double>(part.loader->text_bytes(0)) * total.samples /
             static_cast<double>(std::max<std::int64_t>(1, part.all_samples));
    loss += total.loss;
    tokens += total.tokens;
  }
  std::array<double, 2> ends = {deadline.stopped() ? 1.0 : 0.0, deadline.late() ? 1.0 : 0.0};
  world_.all_reduce(view_of(ends.data(), DType::f64, {2}), Reduction::max);
  Outcome outcome;
  outcome.metrics = {.step = step,
                     .tokens = static_cast<std::int64_t>(tokens),
                     .loss = tokens > 0 ? loss / tokens : 0,
                     .bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / bytes : 0};
  outcome.stopped = ends[0] != 0;
  outcome.whole = !outcome.stopped && ends[1] == 0;
  return outcome;
}

double Evaluator::estimate_seconds() {
  constexpr std::int64_t kTimed = 3;  // their median: one of them may be held up
  double seconds = 0;
  for (const Part& part : parts_) {
    if (part.samples == 0) continue;
    evaluate(part, 0);  // warms caches and pages
    std::array<double, kTimed> took{};
    for (std::int64_t i = 0; i < kTimed; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      evaluate(part, i % microbatches(part));
      const std::chrono::duration<double> once = std::chrono::steady_clock::now() - begin;
      took[static_cast<std::size_t>(i)] = once.count();
    }
    std::sort(took.begin(), took.end());
    const std::int64_t turns = (microbatches(part) + world_.size() - 1) / world_.size();
    seconds += took[kTimed / 2] * static_cast<double>(turns);
  }
  return seconds;
}

}  // namespace shoestring
