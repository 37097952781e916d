#include "core/training/account_texts.h"

#include <fmt/format.h>

#include "core/budget/report.h"

namespace shoestring {

std::string attempt_text(const std::string& run, int attempt, int ranks, bool fresh, std::int64_t step) {
  return fmt::format("{}: attempt {} on {} rank{}, {} from step {}", run, attempt, ranks, ranks == 1 ? "" : "s",
                     fresh ? "beginning" : "going on", step);
}

Notice judgement_notice(std::int64_t step, const Judgement& judgement) {
  const auto notice = [&](const char* about, const char* done) {
    return Notice{about, fmt::format("step {}: {}; {}", step, judgement.why, done)};
  };
  switch (judgement.verdict) {
    case StepVerdict::apply: return notice("clipped", "the step was taken, clipped");
    case StepVerdict::go_back: return notice("went back", "other data does not help: back to the last checkpoint");
    case StepVerdict::skip:
    case StepVerdict::end: break;
  }
  return notice("skipped", "the step was skipped");
}

std::string variants_text(const std::map<std::string, std::string>& variants) {
  std::string text = "kernels:";
  for (const auto& [op, variant] : variants) text += fmt::format(" {}={}", op, variant);
  return text;
}

std::string cut_evaluation_text(std::int64_t step, std::int64_t done, std::int64_t all) {
  return fmt::format(
      "step {}: evaluation cut to {} of {} held-out sequences, spread evenly, by evaluation.cap_share or the cap", step,
      done, all);
}

std::string cut_suites_text(std::int64_t step, std::int64_t done, std::int64_t all) {
  return fmt::format("step {}: suites cut to {} of {} requests, spread evenly, by evaluation.cap_share or the cap",
                     step, done, all);
}

std::string held_out_text(const EvaluationMetrics& metrics, double took_seconds) {
  return fmt::format("step {}: held out {} ({} tokens, {:.2f} s)", metrics.step,
                     held_out_words(metrics.loss, metrics.bits_per_byte), metrics.tokens, took_seconds);
}

std::string score_text(std::int64_t step, const SuiteScore& score) {
  return fmt::format("step {}: {}: {} {:.4f}{} ({} requests)", step, score.task, score.metric, score.value,
                     score.error < 0 ? "" : fmt::format(", standard error {:.4f}", score.error), score.requests);
}

std::string end_text(const std::string& run, Stop stop, std::int64_t step, const std::filesystem::path& folder) {
  const bool later = goes_on_later(stop);
  const char* const why = later ? "left as asked" : stop == Stop::budget ? "the budget is used up" : "done";
  return fmt::format("{}: {} after step {}; {}{}", run, why, step, folder.string(),
                     later ? " is saved, the same command goes on from there" : " is its model");
}

}  // namespace shoestring
