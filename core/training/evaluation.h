// Loss on held-out text.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "core/model/transformer.h"
#include "core/recipe/recipe.h"
#include "core/training/metrics.h"
#include "data/loader.h"
#include "parallel/mesh.h"

namespace shoestring {

/// Bits per byte counts every byte of the held-out text: a token that no context predicts (the first of each document,
/// or of each part of one that is longer than a sequence) is charged log2(vocabulary) bits, as if it were stored
/// plainly.
class Evaluator {
 public:
  /// One loader per validation source. All must outlive it.
  Evaluator(Transformer& model, Mesh& mesh, std::vector<std::unique_ptr<Loader>> loaders, const EvaluationSpec& spec,
            std::int64_t micro_batch);

  struct Outcome {
    EvaluationMetrics metrics;       ///< over what was evaluated; tokens = 0: nothing
    std::int64_t sequences = 0;      ///< evaluated
    std::int64_t all_sequences = 0;  ///< that the recipe asks for
    bool whole = true;               ///< all of them
    bool stopped = false;            ///< on some rank `may_stop` cut it short
  };
  /// Every rank evaluates its share; all get the same result, and that of a whole evaluation has bits that do not
  /// depend on their number. Before micro-batches all ranks ask each other whether `may_stop` says so on one of
  /// them (StopAgreement), and each by itself whether one more, as long as the longest so far, ends within
  /// `most_seconds` of the call. What is cut short has looked at sequences spread evenly
  /// over every source.
  Outcome run(std::int64_t step, bool (*may_stop)(), double most_seconds = std::numeric_limits<double>::infinity());

  /// Seconds a whole run would take now, from timing a few micro-batches of each source on this rank alone. Asks
  /// `may_stop` before each; once true, what is known so far.
  double estimate_seconds(bool (*may_stop)());

 private:
  struct Part {  // one source
    std::unique_ptr<Loader> loader;
    std::int64_t samples = 0;
    std::int64_t all_samples = 0;
  };
  struct Sums {
    double loss = 0;     // nats over predicted tokens
    double tokens = 0;   // predicted
    double text = 0;     // text tokens looked at, predicted or not
    double samples = 0;  // looked at

    Sums& operator+=(const Sums& other);
  };
  static constexpr int kSums = 4;
  class Deadline;
  struct Turn {  // one micro-batch of one source for every rank
    std::size_t part = 0;
    std::int64_t number = 0;  // among the source's turns
  };
  std::vector<Turn> spread_turns() const;
  Sums evaluate(const Part& part, std::int64_t microbatch);
  Sums gather(const Part& part, const std::vector<Sums>& own);
  std::int64_t turns(const Part& part) const {
    return (microbatches(part) + mesh_.data().size() - 1) / mesh_.data().size();
  }
  std::int64_t microbatches(const Part& part) const { return (part.samples + micro_batch_ - 1) / micro_batch_; }

  Transformer& model_;
  Mesh& mesh_;
  std::vector<Part> parts_;
  std::int64_t micro_batch_;
};

}  // namespace shoestring
