// A model's answers to a suite, and the document that tells of them.
#pragma once

#include <string>
#include <vector>

#include "core/generation/generator.h"
#include "core/generation/likelihood.h"
#include "core/generation/suite.h"
#include "core/generation/text_ids.h"

namespace shoestring {

/// Who is asked, in slot 0. All is borrowed.
struct AskedModel {
  CachedForward& forward;
  const Tokenizer& tokenizer;
  const TextIds& ids;
};

/// A request as the model reads it.
struct SuiteTokens {
  struct Part {
    std::vector<std::int32_t> context;
    std::vector<std::int32_t> text;  ///< what is asked about; of loglikelihood_rolling any length
  };
  std::vector<Part> parts;           ///< one for each likelihood
  std::vector<std::int32_t> prompt;  ///< of generate_until
  std::int64_t most_new = 0;         ///< likewise: tokens that may come

  /// The most that a part takes, or prompt and answer: what a slot needs not to leave anything out.
  std::int64_t longest() const;
  /// Of all parts, or of prompt and answer: what it costs, about.
  std::int64_t all() const;
};
/// Throws Error(bad_data) for a continuation that adds no token.
SuiteTokens tokens_of(const SuiteRequest& request, const Tokenizer& tokenizer, std::int32_t prefix);

/// Asks one request after the other; what neighbours have in common is read once.
class SuiteAnswering {
 public:
  explicit SuiteAnswering(const AskedModel& model);
  SuiteAnswer answer(const SuiteRequest& request, const SuiteTokens& tokens);

 private:
  std::string generated(const SuiteRequest& request, const SuiteTokens& tokens);

  AskedModel model_;
  LikelihoodReader reader_;
};

struct TaskScores {
  std::string task;
  std::size_t requests = 0;
  std::map<std::string, Measured> scores;
};
/// Task by task, in the order in which they first come.
std::vector<TaskScores> score_suite(const std::vector<SuiteRequest>& requests, const std::vector<SuiteAnswer>& answers);

/// The harness's form: results by task with "acc,none" and "acc_stderr,none", and n-samples. An error that nobody knows
/// is "N/A".
Json suite_document(const std::vector<TaskScores>& tasks);
/// One line for each request: what was asked and what came.
Json sample_document(const SuiteRequest& request, const SuiteAnswer& answer);

}  // namespace shoestring
