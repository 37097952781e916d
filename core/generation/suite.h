// Suites of questions with known answers, as lm-evaluation-harness asks and scores them.
//
// A suite is JSON lines; `task` groups them, `request_type` says what is asked (the harness's words):
//
//   multiple_choice        context, choices [texts], gold (index), delimiter (" ")
//                          acc: the likeliest of delimiter + choice is gold; acc_norm: the likeliest per character of
//                          the choice, delimiter not counted
//   loglikelihood          context, continuation                 perplexity per continuation; acc: greedy gives it
//   loglikelihood_rolling  text                                  word_perplexity, byte_perplexity, bits_per_byte
//   generate_until         context, target (a text, or several of which one will do), until [texts], max_gen_toks
//                          (256), ignore_case, ignore_punctuation, strip (of white space around the answer)
//                          exact_match: the greedy text before the first of `until`, or before the model ends it
//
// Denominators: of word_perplexity the text's words, which are what stands between runs of white space (one more than
// runs); of byte_perplexity and bits_per_byte its bytes in UTF-8, all of them, with every token predicted, the first
// behind the prefix token (BOS where the model has one, else its end of document).
// Tokens: context and continuation are encoded together and parted where the context alone ends; white space at the
// end of a context counts as the continuation's. No BOS stands in front.
// Standard errors: of means the sample deviation over sqrt(n); of perplexities and bits per byte by the delta method
// (the harness resamples, or has none).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/generation/likelihood.h"
#include "kernels/base/json.h"

namespace shoestring {

enum class SuiteKind : std::uint8_t { multiple_choice, loglikelihood, loglikelihood_rolling, generate_until };

struct SuiteRequest {
  std::string task;
  SuiteKind kind = SuiteKind::multiple_choice;
  std::string context;               ///< or the text of loglikelihood_rolling
  std::vector<std::string> choices;  ///< without delimiter; of loglikelihood the continuation
  std::string delimiter;
  std::size_t gold = 0;
  std::vector<std::string> targets;
  std::vector<std::string> until;
  std::int64_t most_tokens = 256;
  bool ignore_case = false;
  bool ignore_punctuation = false;
  bool strip = false;
};

/// Throws Error(bad_data) with file and line for a line that is no such request, and for a task that asks two kinds.
std::vector<SuiteRequest> read_suite(const std::filesystem::path& file);
/// Of several files, no two of which may have a task in common.
std::vector<SuiteRequest> read_suites(const std::vector<std::string>& files);
SuiteRequest read_suite_request(const Json& line, const std::string& where);

/// What came out of one request.
struct SuiteAnswer {
  std::vector<Likelihood> likelihoods;  ///< of each choice, of the continuation, or of the text
  std::string text;                     ///< that was generated
  bool matched = false;                 ///< it is one of the targets
};

/// A number with its standard error; negative where n is 1, or nobody knows one.
struct Measured {
  double value = 0;
  double error = -1;
};
Measured mean_of(const std::vector<double>& values);
/// sum of `amounts` over sum of `sizes`.
Measured ratio_of(const std::vector<double>& amounts, const std::vector<double>& sizes);

/// Scores of a task by the harness's names ("acc", "acc_norm", ...). `requests` are one task's.
std::map<std::string, Measured> score_task(const std::vector<const SuiteRequest*>& requests,
                                           const std::vector<const SuiteAnswer*>& answers);

/// Whether `text` is one of the targets, as the request compares.
bool exact_match(const SuiteRequest& request, std::string_view text);
/// One more than runs of white space (that of Unicode).
std::int64_t words_of(std::string_view text);
/// Characters, as code points.
std::int64_t characters_of(std::string_view text);

}  // namespace shoestring
