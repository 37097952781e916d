// A model's answers to a suite, and the document that tells of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/generation/generator.h"
#include "core/generation/open_model.h"
#include "core/generation/suite.h"

namespace shoestring {

/// In the order of the requests; `told` is called after each with how many are done.
std::vector<SuiteAnswer> answer_suite(OpenModel& model, const std::vector<SuiteRequest>& requests,
                                      const std::function<void(std::size_t done)>& told);

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
