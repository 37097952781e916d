// Loss on held-out text.
#pragma once

#include <limits>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "core/model/transformer.h"
#include "core/recipe/recipe.h"
#include "core/training/layout.h"
#include "core/training/metrics.h"
#include "core/training/spread.h"
#include "data/loader.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"

namespace shoestring {

/// Bits per byte counts every byte of the text that was looked at: a token that no context predicts (the first of each
/// document, or of each part of one that is longer than a sequence) is charged log2(vocabulary) bits, as if it were
/// stored plainly. A shard knows the bytes of all its text, not of each document: those looked at are taken to be the
/// same share of them as of its tokens. That is exact where a whole source is looked at and no document was cut or
/// dropped (long_documents).
class Evaluator {
 public:
  /// One loader per validation source. All must outlive it.
  Evaluator(Transformer& model, Mesh& mesh, std::vector<std::unique_ptr<Loader>> loaders, const EvaluationSpec& spec,
            std::int64_t micro_batch, ScheduleChoice schedule = {});
  ~Evaluator();

  struct Outcome {
    EvaluationMetrics metrics;       ///< over what was evaluated; tokens = 0: nothing
    std::int64_t sequences = 0;      ///< evaluated
    std::int64_t all_sequences = 0;  ///< that the recipe asks for
    bool whole = true;               ///< all of them
    bool stopped = false;            ///< on some rank `may_stop` cut it short
  };
  /// Every data index evaluates its share, through its pipeline where it is one; all get the same result, and that of a
  /// whole evaluation has bits that do not depend on the layout. Before each wave of micro-batches (one, without a
  /// pipeline) all ranks ask each other whether `may_stop` says so on one of them (StopAgreement), and each whether
  /// one more, as long as the longest so far, ends within `most_seconds` of the call; where ranks work together, one
  /// that has no time ends it for all. What is cut short has looked at sequences spread evenly over every source.
  ///
  /// Where ranks work together all run the same number of forward passes: a data index whose share is shorter repeats
  /// its source's last micro-batch, and counts it once.
  Outcome run(std::int64_t step, bool (*may_stop)(), double most_seconds = std::numeric_limits<double>::infinity());

  /// Whether ranks need each other for a micro-batch: then estimate_seconds is for all of them together.
  bool collective() const { return mesh_.shape().pipeline > 1 || mesh_.shape().expert > 1; }
  /// Seconds a whole run would take now, from timing a few waves of each source. Asks `may_stop` before each, unless
  /// ranks need each other; once true, what is known so far.
  double estimate_seconds(bool (*may_stop)());

 private:
  struct Part {  // one source
    std::unique_ptr<Loader> loader;
    std::int64_t samples = 0;
    double all_tokens = 0;  ///< of its shards, those of documents that are cut or dropped too
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
  using Turn = SpreadPlace;  // one micro-batch of one source for every rank, among the source's turns
  std::vector<Turn> spread_turns() const;
  class EvaluationStage;
  bool hollow();
  using Wave = std::span<const Turn>;
  void evaluate(Wave wave, std::vector<Sums>& sums);
  Pipeline& pipeline_of(int microbatches);
  std::size_t wave_turns() const {
    return mesh_.shape().pipeline == 1 ? 1 : 2 * static_cast<std::size_t>(mesh_.shape().pipeline);
  }
  std::size_t place_of(const Turn& turn) const;
  std::vector<Sums> totals(std::vector<Sums>& sums) const;
  std::int64_t turns(const Part& part) const {
    return (microbatches(part) + mesh_.data().size() - 1) / mesh_.data().size();
  }
  std::int64_t microbatches(const Part& part) const { return (part.samples + micro_batch_ - 1) / micro_batch_; }

  Transformer& model_;
  Mesh& mesh_;
  std::vector<Part> parts_;
  std::int64_t micro_batch_;
  ScheduleChoice schedule_;
  bool (*may_stop_)() = nullptr;  // while one runs that may
  bool hollow_ = false;           // this rank was asked to leave: it passes messages on and computes nothing
  std::vector<std::unique_ptr<MicroBatch>> batches_;  // of the wave under way
  std::vector<LossSum> losses_;                       // theirs, where the last stage is
  std::vector<std::unique_ptr<EvaluationStage>> stages_;
  std::map<int, std::unique_ptr<Pipeline>> pipelines_;  // by the number of micro-batches
};

}  // namespace shoestring
