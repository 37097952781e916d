// The model in training asked a phase's suites of questions (core/generation/suite.h).
//
// Every data index answers its share, through its pipeline where it is one, and with the experts of its neighbours
// where they share them; all ranks get the same scores, whose bits are those of one rank, and of `shoestring evaluate`
// on the checkpoint in the same precision. Keys and values take memory while questions are asked, and no longer.
#pragma once

#include <limits>
#include <vector>

#include "core/budget/ledger.h"
#include "core/generation/suite_run.h"
#include "core/training/layout.h"
#include "core/training/spread.h"
#include "parallel/mesh.h"

namespace shoestring {

class SuiteEvaluator {
 public:
  /// All but `ids` must outlive it; `requests` is not empty; `schedule` says where the stages are. Throws
  /// Error(bad_data), naming the request, for one that has no room in the model's positions, and what tokens_of throws.
  SuiteEvaluator(Transformer& model, Mesh& mesh, const Tokenizer& tokenizer, TextIds ids,
                 const std::vector<SuiteRequest>& requests, const ScheduleChoice& schedule);

  struct Outcome {
    std::vector<SuiteScore> scores;  ///< of what was answered
    std::int64_t requests = 0;       ///< answered
    std::int64_t all_requests = 0;
    bool whole = true;     ///< all of them
    bool stopped = false;  ///< on some rank `may_stop` cut it short: then nothing was scored
  };
  /// Collective. Asks in an order that is spread evenly over every task. Before each request all ranks ask each other
  /// whether `may_stop` says so on one of them (StopAgreement), and each whether one more, as long as the longest so
  /// far, ends within `most_seconds` of the call; where ranks work together, one that has no time ends it for all.
  Outcome run(bool (*may_stop)(), double most_seconds = std::numeric_limits<double>::infinity());

  /// Whether ranks need each other for a request: then estimate_seconds is for all of them together.
  bool collective() const { return mesh_.shape().ranks_of_model() > 1; }
  /// Seconds of a whole run on all ranks together, from timing two requests of each kind on this one. Asks `may_stop`
  /// before each, unless ranks need each other; once true, what is known so far.
  double estimate_seconds(bool (*may_stop)());

  /// Bytes that asking `requests` takes of a model that may not have memory yet.
  static std::int64_t bytes(const Transformer& model, const Tokenizer& tokenizer,
                            const std::vector<SuiteRequest>& requests);

 private:
  class Sheet;
  bool anyone(bool own);
  AskedModel asked(CachedForward& forward) const { return {forward, tokenizer_, ids_}; }
  std::vector<SuiteScore> scores(const Sheet& sheet) const;

  Transformer& model_;
  Mesh& mesh_;
  const Tokenizer& tokenizer_;
  TextIds ids_;
  ModelRanks ranks_;
  const std::vector<SuiteRequest>& requests_;
  std::vector<SuiteTokens> tokens_;  ///< of each
  std::vector<std::size_t> order_;   ///< in which they are asked
};

}  // namespace shoestring
