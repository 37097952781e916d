#include "core/generation/suite_answers.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace shoestring {

std::vector<SuiteTokens> tokens_of(const AskedModel& model, const std::vector<SuiteRequest>& requests) {
  const std::int64_t capacity = model.forward.capacity();
  std::vector<SuiteTokens> all;
  for (const SuiteRequest& request : requests) {
    const std::size_t number = all.size() + 1;
    try {
      all.push_back(tokens_of(request, model.tokenizer, model.ids.prefix));
      if (request.kind == SuiteKind::loglikelihood_rolling) continue;  // is read in pieces
      for (const SuiteTokens::Part& part : all.back().parts) {
        if (std::ssize(part.text) <= capacity) continue;
        fail(ExitCode::usage,
             "a continuation takes {} tokens, but there is room for {}: leave it out, or raise --context as far as the "
             "model has positions",
             part.text.size(), capacity);
      }
    } catch (const Error& error) {
      fail(error.code(), "request {} (task {}): {}", number, request.task, error.what());
    }
  }
  return all;
}

bool leaves_out(const SuiteRequest& request, const SuiteTokens& tokens, std::int64_t capacity) {
  switch (request.kind) {
    case SuiteKind::loglikelihood_rolling: return false;
    case SuiteKind::generate_until:  // as SuiteAnswering has it: beside the answer a token at least
      return std::ssize(tokens.prompt) > capacity - std::min(tokens.most_new, capacity - 1);
    case SuiteKind::multiple_choice:
    case SuiteKind::loglikelihood: break;
  }
  return std::any_of(tokens.parts.begin(), tokens.parts.end(), [&](const SuiteTokens::Part& part) {
    return std::ssize(part.context) + std::ssize(part.text) - 1 > capacity;  // the last token is only predicted
  });
}

std::vector<SuiteAnswer> answer_suite(const AskedModel& model, const std::vector<SuiteRequest>& requests,
                                      const std::vector<SuiteTokens>& tokens,
                                      const std::function<void(std::size_t, const SuiteAnswer&)>& told) {
  check(requests.size() == tokens.size(), "tokens of {} requests, not of {}", tokens.size(), requests.size());
  SuiteAnswering answering(model);
  std::vector<SuiteAnswer> answers;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    answers.push_back(answering.answer(requests[i], tokens[i]));
    told(i, answers.back());
  }
  return answers;
}

}  // namespace shoestring
