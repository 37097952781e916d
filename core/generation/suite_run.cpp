#include "core/generation/suite_run.h"

#include <algorithm>

#include "core/generation/text_stream.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// As lm-eval has it: a suite's texts may spell tokens.
std::vector<std::int32_t> encoded(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode_prompt(text, ids);
  return {ids.begin(), ids.end()};
}

/// Where white space at the end of `text` begins, as Python's rstrip has it for ASCII.
std::size_t stripped(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\n\r\v\f\x1c\x1d\x1e\x1f");
  return last == std::string_view::npos ? 0 : last + 1;
}

/// Encoded together, and parted where the context alone ends.
SuiteTokens::Part parted(const std::string& context, const std::string& continuation, const Tokenizer& tokenizer,
                         std::int32_t prefix) {
  if (context.empty()) return {{prefix}, encoded(tokenizer, continuation)};
  const std::vector<std::int32_t> all = encoded(tokenizer, context + continuation);
  const std::size_t front = encoded(tokenizer, context.substr(0, stripped(context))).size();
  if (front >= all.size()) {
    fail(ExitCode::bad_data, "{} adds no token to what stands before it; leave it out", Json(continuation).dump());
  }
  if (front == 0) return {{prefix}, all};
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(front);
  return {{all.begin(), middle}, {middle, all.end()}};
}

}  // namespace

std::int64_t SuiteTokens::longest() const {
  std::int64_t most = std::ssize(prompt) + most_new;
  for (const Part& part : parts) most = std::max(most, std::ssize(part.context) + std::ssize(part.text));
  return most;
}

std::int64_t SuiteTokens::all() const {
  std::int64_t sum = std::ssize(prompt) + most_new;
  for (const Part& part : parts) sum += std::ssize(part.context) + std::ssize(part.text);
  return sum;
}

SuiteTokens tokens_of(const SuiteRequest& request, const Tokenizer& tokenizer, std::int32_t prefix) {
  SuiteTokens tokens;
  switch (request.kind) {
    case SuiteKind::multiple_choice:
      for (const std::string& choice : request.choices) {
        tokens.parts.push_back(parted(request.context, request.delimiter + choice, tokenizer, prefix));
      }
      break;
    case SuiteKind::loglikelihood:
      tokens.parts.push_back(parted(request.context, request.choices[0], tokenizer, prefix));
      break;
    case SuiteKind::loglikelihood_rolling:
      tokens.parts.push_back({{prefix}, encoded(tokenizer, request.context)});
      break;
    case SuiteKind::generate_until:
      tokens.prompt = encoded(tokenizer, request.context);
      if (tokens.prompt.empty()) tokens.prompt = {prefix};
      tokens.most_new = request.most_tokens;
      break;
  }
  return tokens;
}

SuiteAnswering::SuiteAnswering(const AskedModel& model)
    : model_(model), reader_(model.forward, model.tokenizer.vocabulary_size()) {}

SuiteAnswer SuiteAnswering::answer(const SuiteRequest& request, const SuiteTokens& tokens) {
  SuiteAnswer answer;
  for (const SuiteTokens::Part& part : tokens.parts) {
    answer.likelihoods.push_back(request.kind == SuiteKind::loglikelihood_rolling
                                     ? reader_.of_text(part.context.front(), part.text)
                                     : reader_.of(part.context, part.text));
  }
  if (request.kind == SuiteKind::generate_until) {
    answer.text = generated(request, tokens);
    answer.matched = exact_match(request, answer.text);
  }
  return answer;
}

std::string SuiteAnswering::generated(const SuiteRequest& request, const SuiteTokens& tokens) {
  GenerationRequest asked{.prompt = tokens.prompt,
                          .most_tokens = tokens.most_new,
                          .sampling = {.temperature = 0},
                          .stop_ids = model_.ids.stop};
  const std::int64_t capacity = model_.forward.capacity();
  const std::int64_t room = capacity - std::min(asked.most_tokens, capacity - 1);
  if (std::ssize(asked.prompt) > room) {  // the beginning is left out
    asked.prompt.erase(asked.prompt.begin(), asked.prompt.end() - room);
  }
  TextStream stream(model_.tokenizer, request.until);
  std::string text;
  Generator(model_.forward, model_.tokenizer.vocabulary_size()).run_one(asked, [&](std::int32_t id) {
    text += stream.add(id);
    return !stream.stopped();
  });
  reader_.forget();
  return text + stream.finish();
}

std::vector<TaskScores> score_suite(const std::vector<SuiteRequest>& requests,
                                    const std::vector<SuiteAnswer>& answers) {
  check(requests.size() == answers.size(), "{} answers to {} requests", answers.size(), requests.size());
  std::vector<TaskScores> tasks;
  for (const SuiteRequest& first : requests) {
    const auto same = [&](const TaskScores& task) { return task.task == first.task; };
    if (std::any_of(tasks.begin(), tasks.end(), same)) continue;
    std::vector<const SuiteRequest*> own;
    std::vector<const SuiteAnswer*> theirs;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].task != first.task) continue;
      own.push_back(&requests[i]);
      theirs.push_back(&answers[i]);
    }
    tasks.push_back({first.task, own.size(), score_task(own, theirs)});
  }
  return tasks;
}

Json suite_document(const std::vector<TaskScores>& tasks) {
  Json results = Json::object();
  Json samples = Json::object();
  for (const TaskScores& task : tasks) {
    Json& scores = results.add(task.task, Json::object({{"alias", task.task}}));
    for (const auto& [name, measured] : task.scores) {
      scores.add(name + ",none", measured.value);
      scores.add(name + "_stderr,none", measured.error < 0 ? Json("N/A") : Json(measured.error));
    }
    samples.add(task.task, Json::object({{"original", task.requests}, {"effective", task.requests}}));
  }
  Json document = Json::object();
  document.add("results", std::move(results));
  document.add("n-samples", std::move(samples));
  return document;
}

Json sample_document(const SuiteRequest& request, const SuiteAnswer& answer) {
  Json line = Json::object({{"task", request.task}, {"context", request.context}});
  if (!request.choices.empty()) line.add("continuations", Json::array_of(request.choices));
  if (request.kind == SuiteKind::multiple_choice) line.add("gold", request.gold);
  if (request.kind == SuiteKind::generate_until) {
    line.add("target", Json::array_of(request.targets));
    line.add("text", answer.text);
    line.add("exact_match", answer.matched);
  }
  Json found = Json::array();
  for (const Likelihood& likelihood : answer.likelihoods) {
    Json pair = Json::array();
    pair.push(likelihood.log_probability);
    pair.push(likelihood.greedy);
    found.push(std::move(pair));
  }
  if (found.size() > 0) line.add("resps", std::move(found));
  return line;
}

}  // namespace shoestring
