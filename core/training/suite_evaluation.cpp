#include "core/training/suite_evaluation.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "core/training/stop_agreement.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int64_t kRows = 256;  // tokens that are read at a time

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

CachedForwardOptions forward_options(const ModelConfig& config, std::int64_t longest) {
  const std::int64_t capacity = std::min(longest, config.max_positions);
  return {.slots = 1, .capacity = capacity, .rows = std::min(kRows, capacity)};
}

std::int64_t longest_of(const std::vector<SuiteTokens>& all) {
  std::int64_t longest = 1;
  for (const SuiteTokens& tokens : all) longest = std::max(longest, tokens.longest());
  return longest;
}

/// Indices of requests, any beginning spread evenly over every task.
std::vector<std::size_t> spread_over_tasks(const std::vector<SuiteRequest>& requests) {
  std::map<std::string, std::size_t> parts;
  std::vector<std::vector<std::size_t>> of_task;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto [place, fresh] = parts.emplace(requests[i].task, of_task.size());
    if (fresh) of_task.emplace_back();
    of_task[place->second].push_back(i);
  }
  std::vector<std::int64_t> counts;
  for (const std::vector<std::size_t>& task : of_task) counts.push_back(std::ssize(task));
  std::vector<std::size_t> order;
  for (const SpreadPlace& at : spread_evenly(counts)) {
    order.push_back(of_task[at.part][static_cast<std::size_t>(at.number)]);
  }
  return order;
}

ModelRanks ranks_of_model(Mesh& mesh, const ScheduleChoice& schedule) {
  ModelRanks ranks;
  if (const int pipeline = mesh.shape().pipeline; pipeline > 1) {
    ranks.pipeline = &mesh.pipeline();
    ranks.rank_of_stage = rank_of_stage(make_schedule(schedule, pipeline, 2 * pipeline));
  }
  if (mesh.shape().expert > 1) ranks.experts = &mesh.expert();
  return ranks;
}

}  // namespace

/// What all requests' answers come to in numbers: each is known to one rank and zero on all others.
class SuiteEvaluator::Sheet {
 public:
  explicit Sheet(const std::vector<SuiteTokens>& tokens) {
    for (const SuiteTokens& request : tokens) {
      places_.push_back(numbers_.size());
      numbers_.resize(numbers_.size() + 2 + 2 * request.parts.size());  // answered, matched; of each part two
    }
  }

  void write(std::size_t request, const SuiteAnswer& answer) {
    double* at = numbers_.data() + places_[request];
    *at++ = 1;
    *at++ = answer.matched ? 1 : 0;
    for (const Likelihood& likelihood : answer.likelihoods) {
      *at++ = likelihood.log_probability;
      *at++ = likelihood.greedy ? 1 : 0;
    }
  }
  bool answered(std::size_t request) const { return numbers_[places_[request]] != 0; }
  SuiteAnswer read(std::size_t request) const {
    const std::size_t end = request + 1 < places_.size() ? places_[request + 1] : numbers_.size();
    SuiteAnswer answer;
    answer.matched = numbers_[places_[request] + 1] != 0;
    for (std::size_t at = places_[request] + 2; at < end; at += 2) {
      answer.likelihoods.push_back({numbers_[at], numbers_[at + 1] != 0});
    }
    return answer;
  }
  void gather(Communicator& world) {
    if (world.size() == 1) return;
    world.all_reduce(view_of(static_cast<void*>(numbers_.data()), DType::f64, {std::ssize(numbers_)}));
  }

 private:
  std::vector<double> numbers_;
  std::vector<std::size_t> places_;
};

SuiteEvaluator::SuiteEvaluator(Transformer& model, Mesh& mesh, const Tokenizer& tokenizer, TextIds ids,
                               const std::vector<SuiteRequest>& requests, const ScheduleChoice& schedule)
    : model_(model),
      mesh_(mesh),
      tokenizer_(tokenizer),
      ids_(std::move(ids)),
      ranks_(ranks_of_model(mesh, schedule)),
      requests_(requests),
      order_(spread_over_tasks(requests)) {
  const std::int64_t positions = model.config().max_positions;
  for (const SuiteRequest& request : requests) {
    const std::size_t number = tokens_.size() + 1;
    try {
      tokens_.push_back(tokens_of(request, tokenizer, ids_.prefix));
    } catch (const Error& error) {
      fail(error.code(), "evaluation.suites: request {} (task {}): {}", number, request.task, error.what());
    }
    if (request.kind == SuiteKind::loglikelihood_rolling) continue;
    for (const SuiteTokens::Part& part : tokens_.back().parts) {
      if (std::ssize(part.text) <= positions) continue;
      fail(ExitCode::bad_data,
           "evaluation.suites: request {} (task {}): a text of {} tokens is longer than the model's {} positions; "
           "leave it out, or "
           "train with a longer sequence",
           number, request.task, part.text.size(), positions);
    }
  }
}

std::int64_t SuiteEvaluator::bytes(const Transformer& model, const Tokenizer& tokenizer,
                                   const std::vector<SuiteRequest>& requests) {
  std::int64_t longest = 1;
  for (const SuiteRequest& request : requests) {
    longest = std::max(longest, tokens_of(request, tokenizer, 0).longest());
  }
  return CachedForward::bytes(model, forward_options(model.config(), longest));
}

/// Where ranks work together, whether one of them says so.
bool SuiteEvaluator::anyone(bool own) {
  if (!collective()) return own;
  double any = own ? 1 : 0;
  mesh_.world().all_reduce(view_of(&any, DType::f64, {1}), Reduction::max);
  return any != 0;
}

SuiteEvaluator::Outcome SuiteEvaluator::run(bool (*may_stop)(), double most_seconds) {
  StopAgreement stop(mesh_.world(), system_clock(), may_stop);
  stop.begin();
  const double begin = seconds_now();
  double longest = 0;
  bool passed = false;
  Outcome outcome{.scores = {}, .all_requests = std::ssize(requests_)};
  CachedForward forward(model_, forward_options(model_.config(), longest_of(tokens_)), ranks_);
  SuiteAnswering answering(asked(forward));
  Sheet sheet(tokens_);
  const bool speaks = mesh_.at().pipeline == 0;  // of the ranks that answer together
  const auto ranks = static_cast<std::size_t>(mesh_.data().size());
  for (std::size_t turn = 0; turn < order_.size(); turn += ranks) {
    outcome.stopped = stop.leave();
    if (outcome.stopped) break;
    const std::size_t own = turn + static_cast<std::size_t>(mesh_.data().rank());
    const double turn_began = seconds_now();
    passed = passed || anyone(turn_began - begin + longest > most_seconds);
    if (passed) continue;  // not away from the others, who may yet ask whether to leave
    if (own < order_.size()) {
      const SuiteAnswer answer = answering.answer(requests_[order_[own]], tokens_[order_[own]]);
      if (speaks) sheet.write(order_[own], answer);
    }
    forward.join();
    longest = std::max(longest, seconds_now() - turn_began);
  }
  outcome.whole = false;
  if (outcome.stopped) return outcome;
  sheet.gather(mesh_.world());
  for (std::size_t i = 0; i < requests_.size(); ++i) outcome.requests += sheet.answered(i) ? 1 : 0;
  outcome.whole = outcome.requests == outcome.all_requests;
  outcome.scores = scores(sheet);
  return outcome;
}

std::vector<SuiteScore> SuiteEvaluator::scores(const Sheet& sheet) const {
  std::vector<SuiteRequest> asked;
  std::vector<SuiteAnswer> answers;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (!sheet.answered(i)) continue;
    asked.push_back(requests_[i]);
    answers.push_back(sheet.read(i));
  }
  std::vector<SuiteScore> all;
  for (const TaskScores& task : score_suite(asked, answers)) {
    for (const auto& [metric, measured] : task.scores) {
      all.push_back({.task = task.task,
                     .metric = metric,
                     .requests = static_cast<std::int64_t>(task.requests),
                     .value = measured.value,
                     .error = measured.error});
    }
  }
  return all;
}

double SuiteEvaluator::estimate_seconds(bool (*may_stop)()) {
  constexpr int kTimed = 2;
  struct Kind {
    int timed = -1;  // the first one warms caches and pages
    double seconds = 0;
    double timed_tokens = 0;
    double all_tokens = 0;
  };
  std::map<SuiteKind, Kind> kinds;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    kinds[requests_[i].kind].all_tokens += static_cast<double>(tokens_[i].all());
  }
  CachedForward forward(model_, forward_options(model_.config(), longest_of(tokens_)), ranks_);
  SuiteAnswering answering(asked(forward));
  for (const std::size_t i : order_) {
    Kind& kind = kinds[requests_[i].kind];
    if (kind.timed == kTimed) continue;
    if (!collective() && may_stop()) break;
    const double begin = seconds_now();
    answering.answer(requests_[i], tokens_[i]);
    forward.join();
    const bool only = kind.all_tokens == static_cast<double>(tokens_[i].all());
    if (kind.timed++ < 0 && !only) continue;
    kind.seconds += seconds_now() - begin;
    kind.timed_tokens += static_cast<double>(tokens_[i].all());
  }
  double seconds = 0;
  for (const auto& [which, kind] : kinds) {
    if (kind.timed_tokens > 0) seconds += kind.seconds * kind.all_tokens / kind.timed_tokens;
  }
  return seconds / mesh_.data().size();
}

}  // namespace shoestring
