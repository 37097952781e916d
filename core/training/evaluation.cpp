#include "core/training/evaluation.h"

#include <algorithm>
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
  const Batch batch = part.loader->fetch({first, std::min(micro_batch_, part.samples - first)});
  const LossSum loss = model_.evaluate({.inputs = batch.inputs,
                                        .targets = batch.targets,
                                        .positions = batch.positions,
                                        .segment_start = batch.segment_start,
                                        .sequence = batch.sequence});
  return {loss.loss, static_cast<double>(loss.tokens), static_cast<double>(batch.text_tokens)};
}

Evaluator::Outcome Evaluator::run(std::int64_t step, bool (*may_stop)()) {
  Outcome outcome;
  outcome.metrics.step = step;
  double nats = 0;
  double bytes = 0;
  double tokens = 0;
  double loss = 0;
  for (const Part& part : parts_) {
    // Micro-batch i is rank (i mod size)'s; the sums of all are added in order of i on every rank.
    const std::int64_t count = microbatches(part);
    const std::int64_t mine = (count + world_.size() - 1) / world_.size();
    std::vector<double> own(static_cast<std::size_t>(mine * 3), 0.0);
    for (std::int64_t turn = 0; turn < mine; ++turn) {
      const std::int64_t microbatch = turn * world_.size() + world_.rank();
      if (may_stop()) outcome.complete = false;
      if (microbatch >= count || !outcome.complete) continue;
      const Sums sums = evaluate(part, microbatch);
      const auto at = static_cast<std::size_t>(turn * 3);
      own[at] = sums.loss;
      own[at + 1] = sums.tokens;
      own[at + 2] = sums.text;
    }
    std::vector<double> all(own.size() * static_cast<std::size_t>(world_.size()));
    world_.all_gather(
        view_of(all.data(), DType::f64, {static_cast<std::int64_t>(all.size())}),
        view_of(static_cast<const void*>(own.data()), DType::f64, {static_cast<std::int64_t>(own.size())}));
    Sums total;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(((i % world_.size()) * mine + i / world_.size()) * 3);
      total.loss += all[at];
      total.tokens += all[at + 1];
      total.text += all[at + 2];
    }
    const double unpredicted = total.text - total.tokens;
    nats += total.loss + unpredicted * std::log(static_cast<double>(part.loader->vocabulary_size()));
    bytes += static_cast<double>(part.loader->text_bytes(0)) * static_cast<double>(part.samples) /
             static_cast<double>(std::max<std::int64_t>(1, part.all_samples));
    loss += total.loss;
    tokens += total.tokens;
  }
  double stopped = outcome.complete ? 0.0 : 1.0;
  world_.all_reduce(view_of(&stopped, DType::f64, {1}), Reduction::max);
  outcome.complete = stopped == 0.0;
  outcome.metrics.tokens = static_cast<std::int64_t>(tokens);
  outcome.metrics.loss = tokens > 0 ? loss / tokens : 0;
  outcome.metrics.bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / bytes : 0;
  return outcome;
}

double Evaluator::estimate_seconds() {
  double seconds = 0;
  for (const Part& part : parts_) {
    if (part.samples == 0) continue;
    evaluate(part, 0);  // warms caches and pages
    const auto begin = std::chrono::steady_clock::now();
    evaluate(part, 0);
    const std::chrono::duration<double> once = std::chrono::steady_clock::now() - begin;
    const std::int64_t turns = (microbatches(part) + world_.size() - 1) / world_.size();
    seconds += once.count() * static_cast<double>(turns);
  }
  return seconds;
}

}  // namespace shoestring
