// A suite answered from its first request to its last: all of it is looked at before, and each answer told as it comes.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/generation/suite_run.h"

namespace shoestring {

/// Of all requests, before the first is answered: Error(bad_data) for a continuation that adds no token, Error(usage)
/// for one that alone is longer than a slot of the model, each with the request's number and task.
std::vector<SuiteTokens> tokens_of(const AskedModel& model, const std::vector<SuiteRequest>& requests);

/// Whether the beginning of the request's context has no room in a slot of `capacity` tokens and is left out.
bool leaves_out(const SuiteRequest& request, const SuiteTokens& tokens, std::int64_t capacity);

/// In the order of the requests, whose tokens_of `tokens` are; `told` is called after each with its index and answer.
std::vector<SuiteAnswer> answer_suite(const AskedModel& model, const std::vector<SuiteRequest>& requests,
                                      const std::vector<SuiteTokens>& tokens,
                                      const std::function<void(std::size_t index, const SuiteAnswer& answer)>& told);

}  // namespace shoestring
