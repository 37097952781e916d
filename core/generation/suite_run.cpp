#include "core/generation/suite_run.h"

#include <algorithm>

#include "core/generation/text_stream.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::vector<std::int32_t> encoded(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return {ids.begin(), ids.end()};
}

/// Where white space at the end of `text` begins, as Python's rstrip has it for ASCII.
std::size_t stripped(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\n\r\v\f\x1c\x1d\x1e\x1f");
  return last == std::string_view::npos ? 0 : last + 1;
}

class Answering {
 public:
  explicit Answering(OpenModel& model)
      : model_(model), reader_(model.forward(), model.tokenizer().vocabulary_size()), prefix_(model.prefix_id()) {}

  SuiteAnswer operator()(const SuiteRequest& request) {
    SuiteAnswer answer;
    switch (request.kind) {
      case SuiteKind::multiple_choice:
        for (const std::string& choice : request.choices) {
          answer.likelihoods.push_back(continued(request.context, request.delimiter + choice));
        }
        break;
      case SuiteKind::loglikelihood:
        answer.likelihoods.push_back(continued(request.context, request.choices[0]));
        break;
      case SuiteKind::loglikelihood_rolling:
        answer.likelihoods.push_back(reader_.of_text(prefix_, encoded(model_.tokenizer(), request.context)));
        break;
      case SuiteKind::generate_until: answer.text = generated(request); break;
    }
    return answer;
  }

 private:
  Likelihood continued(const std::string& context, const std::string& continuation) {
    if (context.empty()) return reader_.of(std::span(&prefix_, 1), encoded(model_.tokenizer(), continuation));
    const std::vector<std::int32_t> all = encoded(model_.tokenizer(), context + continuation);
    const std::size_t front = encoded(model_.tokenizer(), context.substr(0, stripped(context))).size();
    if (front >= all.size()) {
      fail(ExitCode::bad_data, "{} adds no token to what stands before it; leave it out", Json(continuation).dump());
    }
    const std::span<const std::int32_t> ids(all);
    if (front == 0) return reader_.of(std::span(&prefix_, 1), ids);
    return reader_.of(ids.first(front), ids.subspan(front));
  }

  std::string generated(const SuiteRequest& request) {
    GenerationRequest asked{.prompt = encoded(model_.tokenizer(), request.context),
                            .most_tokens = request.most_tokens,
                            .sampling = {.temperature = 0},
                            .stop_ids = model_.stop_ids()};
    if (asked.prompt.empty()) asked.prompt = {prefix_};
    const std::int64_t room =
        model_.forward().capacity() - std::min(asked.most_tokens, model_.forward().capacity() - 1);
    if (static_cast<std::int64_t>(asked.prompt.size()) > room) {  // the beginning is left out
      asked.prompt.erase(asked.prompt.begin(), asked.prompt.end() - room);
    }
    TextStream stream(model_.tokenizer(), request.until);
    std::string text;
    Generator(model_.forward(), model_.tokenizer().vocabulary_size()).run_one(asked, [&](std::int32_t id) {
      text += stream.add(id);
      return !stream.stopped();
    });
    reader_.forget();
    return text + stream.finish();
  }

  OpenModel& model_;
  LikelihoodReader reader_;
  std::int32_t prefix_;
};

}  // namespace

std::vector<SuiteAnswer> answer_suite(OpenModel& model, const std::vector<SuiteRequest>& requests,
                                      const std::function<void(std::size_t done)>& told) {
  Answering answering(model);
  std::vector<SuiteAnswer> answers;
  for (const SuiteRequest& request : requests) {
    try {
      answers.push_back(answering(request));
    } catch (const Error& error) {
      fail(error.code(), "request {} (task {}): {}", answers.size() + 1, request.task, error.what());
    }
    told(answers.size());
  }
  return answers;
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
    line.add("exact_match", exact_match(request, answer.text));
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
