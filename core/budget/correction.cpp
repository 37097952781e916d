#include "core/budget/correction.h"

#include <fmt/core.h>

namespace shoestring {

std::string Correction::text() const {
  std::string text;
  const auto add = [&](const char* what, double factor) {
    if (factor != 1) text += fmt::format("{}{} x {:.2f}", text.empty() ? "" : ", ", what, factor);
  };
  add("computing", compute);
  add("messages", messages);
  add("bubble", bubble);
  if (others > 0) text += fmt::format("{}other waiting {:.1f}% more", text.empty() ? "" : ", ", 100 * others);
  return text;
}

Correction correction_of(const StepParts& paper, const PhaseSpeed& measured) {
  const CategorySeconds& parts = measured.parts;
  const double all = parts.total();
  const auto factor = [&](double came, double foretold) {
    constexpr double kLeast = 1e-3;
    return came > kLeast * all && foretold > kLeast * paper.total() ? came / foretold : 1;
  };
  const double computing = parts[Category::compute] + parts[Category::recompute];
  const double messages = parts[Category::exposed_communication];
  const double bubble = parts[Category::bubble];
  const double covered = computing + messages + bubble;
  return {.compute = factor(computing, paper.compute + paper.recompute + paper.optimizer),
          .messages = factor(messages, paper.tensor + paper.expert + paper.data),
          .bubble = factor(bubble, paper.bubble),
          .others = covered > 0 ? (all - covered) / covered : 0};
}

StepParts corrected(const StepParts& paper, const Correction& correction) {
  const double all = 1 + correction.others;
  return {.compute = paper.compute * correction.compute * all,
          .recompute = paper.recompute * correction.compute * all,
          .tensor = paper.tensor * correction.messages * all,
          .expert = paper.expert * correction.messages * all,
          .data = paper.data * correction.messages * all,
          .bubble = paper.bubble * correction.bubble * all,
          .optimizer = paper.optimizer * correction.compute * all};
}

}  // namespace shoestring
