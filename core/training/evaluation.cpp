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
                     const EvaluationSpec& spec, std::int64_t micro_batch)
    : model_(model), mesh_(mesh), micro_batch_(micro_batch) {
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
  const LossSum loss = model_.evaluate(view_of(batch));
  return {loss.loss, static_cast<double>(loss.tokens), static_cast<double>(batch.text_tokens),
          static_cast<double>(samples)};
}

/// Whether a rank has time for another micro-batch.
class Evaluator::Deadline {
 public:
  explicit Deadline(double most_seconds) : most_seconds_(most_seconds) {}

  /// Asked before each micro-batch; once true, true for ever.
  bool passed() {
    turn_began_ = seconds();
    passed_ = passed_ || turn_began_ + longest_ > most_seconds_;
    return passed_;
  }
  /// After each.
  void took_turn() { longest_ = std::max(longest_, seconds() - turn_began_); }
  bool has_passed() const { return passed_; }

 private:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

  double most_seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double turn_began_ = 0;
  double longest_ = 0;
  bool passed_ = false;
};

Evaluator::Sums& Evaluator::Sums::operator+=(const Sums& other) {
  loss += other.loss;
  tokens += other.tokens;
  text += other.text;
  samples += other.samples;
  return *this;
}

// Any first part of this order is spread evenly over each source, and over the sources by their size: a turn comes
// where the bits of its number, read backwards as a fraction, say (van der Corput's sequence).
std::vector<Evaluator::Turn> Evaluator::spread_turns() const {
  std::vector<std::pair<double, Turn>> placed;
  for (std::size_t index = 0; index < parts_.size(); ++index) {
    std::vector<std::pair<double, Turn>> of_part;
    for (std::int64_t number = 0; number < turns(parts_[index]); ++number) {
      double fraction = 0;
      double weight = 0.5;
      for (std::int64_t bits = number; bits > 0; bits /= 2, weight /= 2)
        fraction += static_cast<double>(bits % 2) * weight;
      of_part.push_back({fraction, {index, number}});
    }
    std::sort(of_part.begin(), of_part.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto count = static_cast<double>(of_part.size());
    for (std::size_t place = 0; place < of_part.size(); ++place) {
      placed.push_back({(static_cast<double>(place) + 0.5) / count, of_part[place].second});
    }
  }
  std::stable_sort(placed.begin(), placed.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Turn> order;
  for (const auto& [place, turn] : placed) order.push_back(turn);
  return order;
}

// Micro-batch i is rank (i mod size)'s; the sums of all are added in order of i on every rank.
Evaluator::Sums Evaluator::gather(const Part& part, const std::vector<Sums>& own) {
  Communicator& data = mesh_.data();
  const auto mine = static_cast<std::int64_t>(own.size());
  std::vector<Sums> all(own.size() * static_cast<std::size_t>(data.size()));
  static_assert(sizeof(Sums) == kSums * sizeof(double));
  data.all_gather(view_of(static_cast<void*>(all.data()), DType::f64, {kSums * mine * data.size()}),
                  view_of(static_cast<const void*>(own.data()), DType::f64, {kSums * mine}));
  Sums total;
  for (std::int64_t i = 0; i < microbatches(part); ++i) {
    total += all[static_cast<std::size_t>((i % data.size()) * mine + i / data.size())];
  }
  return total;
}

Evaluator::Outcome Evaluator::run(std::int64_t step, bool (*may_stop)(), double most_seconds) {
  StopAgreement stop(mesh_.world(), system_clock(), may_stop);
  stop.begin();
  Deadline deadline(most_seconds);
  Outcome outcome;
  std::vector<std::vector<Sums>> own;
  for (const Part& part : parts_) own.emplace_back(static_cast<std::size_t>(turns(part)));
  for (const Turn& turn : spread_turns()) {
    outcome.stopped = stop.leave();
    if (outcome.stopped) break;
    if (deadline.passed()) continue;  // not away from the others, who may yet ask whether to leave
    const Part& part = parts_[turn.part];
    const std::int64_t microbatch = turn.number * mesh_.data().size() + mesh_.data().rank();
    if (microbatch >= microbatches(part)) continue;
    own[turn.part][static_cast<std::size_t>(turn.number)] = evaluate(part, microbatch);
    deadline.took_turn();
  }
  double nats = 0;
  double bytes = 0;
  double tokens = 0;
  double loss = 0;
  for (std::size_t index = 0; index < parts_.size(); ++index) {
    const Part& part = parts_[index];
    const Sums total = gather(part, own[index]);
    const double unpredicted = total.text - total.tokens;
    nats += total.loss + unpredicted * std::log(static_cast<double>(part.loader->vocabulary_size()));
    bytes += static_cast<double>(part.loader->text_bytes(0)) * total.samples /
             static_cast<double>(std::max<std::int64_t>(1, part.all_samples));
    loss += total.loss;
    tokens += total.tokens;
    outcome.sequences += static_cast<std::int64_t>(total.samples);
    outcome.all_sequences += part.samples;
  }
  double cut = deadline.has_passed() ? 1.0 : 0.0;
  mesh_.world().all_reduce(view_of(&cut, DType::f64, {1}), Reduction::max);
  outcome.metrics = {.step = step,
                     .tokens = static_cast<std::int64_t>(tokens),
                     .loss = tokens > 0 ? loss / tokens : 0,
                     .bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / bytes : 0};
  outcome.whole = !outcome.stopped && cut == 0;
  return outcome;
}

double Evaluator::estimate_seconds(bool (*may_stop)()) {
  constexpr std::int64_t kTimed = 3;  // their median: one of them may be held up
  double seconds = 0;
  for (const Part& part : parts_) {
    if (part.samples == 0) continue;
    if (may_stop()) return seconds;
    evaluate(part, 0);  // warms caches and pages
    std::array<double, kTimed> took{};
    for (std::int64_t i = 0; i < kTimed; ++i) {
      if (may_stop()) return seconds;
      const auto begin = std::chrono::steady_clock::now();
      evaluate(part, i % microbatches(part));
      const std::chrono::duration<double> once = std::chrono::steady_clock::now() - begin;
      took[static_cast<std::size_t>(i)] = once.count();
    }
    std::sort(took.begin(), took.end());
    seconds += took[kTimed / 2] * static_cast<double>(turns(part));
  }
  return seconds;
}

}  // namespace shoestring
