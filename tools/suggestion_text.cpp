#include "tools/suggestion_text.h"

#include <fmt/core.h>

#include <cmath>

#include "core/recipe/names.h"
#include "core/recipe/units.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::vector<Suggestion> suggestions_of(const SuggestionQuestion& question) {
  std::vector<Suggestion> found = suggest(question);
  if (found.empty()) {
    fail(ExitCode::bad_recipe,
         "no model fits: {} GPU-hours on {} {} do not hold one step of the smallest; give a larger budget, or fewer "
         "devices",
         rounded(question.gpu_hours), question.devices, question.hardware.name);
  }
  return found;
}

void print_recipe(const Suggestion& best, const Recipe& recipe) {
  const ModelSpec& m = best.model;
  fmt::print("recipe       for the best of them\n[model]\n");
  fmt::print("architecture = {}\nvocabulary = {}\nlayers = {}\nhidden = {}\nheads = {}\nkv_heads = {}\nhead_dim = {}\n",
             word(m.architecture), m.vocabulary, m.layers, m.hidden, m.heads, m.kv_heads, m.head_dim);
  if (m.experts > 0) {
    fmt::print("experts = {}\nexperts_per_token = {}\nexpert_feed_forward = {}\nrouter = {}\n", m.experts,
               m.experts_per_token, m.expert_feed_forward, word(m.router));
  } else {
    fmt::print("feed_forward = {}\n", m.feed_forward);
  }
  fmt::print("[schedule]\nhorizon = budget\nlearning_rate = {:.3g}\n", best.learning_rate);
  fmt::print("[phase.{}]\nsequence = {}\nmicro_batch = {}\nglobal_batch = {}\n", recipe.phases.front().name,
             recipe.phases.front().sequence, recipe.phases.front().micro_batch, best.global_batch);
}

}  // namespace

void print_suggestions(const SuggestionQuestion& q) {
  const std::vector<Suggestion> found = suggestions_of(q);
  fmt::print("suggested    for {} GPU-hours on {} {}, by {} ({})\n", rounded(q.gpu_hours), q.devices, q.hardware.name,
             q.law.name, q.law.source);
  fmt::print("             batch and rate by DeepSeek LLM (arXiv 2401.02954, section 3.1)\n");
  fmt::print("             {:>7} {:>10} {:>10} {:>7} {:>10} {:>8} {:>7} {:>9}  layout\n", "loss", "parameters",
             "active", "experts", "tokens", "steps", "batch", "rate");
  for (const Suggestion& one : found) {
    fmt::print("             {:>7.4f} {:>10} {:>10} {:>7} {:>10} {:>8} {:>7} {:>9.2g}  {}\n", one.loss,
               rounded(one.parameters), rounded(one.active),
               one.model.experts > 0 ? std::to_string(one.model.experts) : "-", rounded(one.tokens), rounded(one.steps),
               one.global_batch, one.learning_rate, to_string(one.layout.layout));
  }
  fmt::print(
      "             losses rank sizes, and are off by tenths for other data and tokenizers; tokens that repeat are\n"
      "             worth less than these laws take them to be\n");
  print_recipe(found.front(), q.recipe);
}

Json suggestions_json(const SuggestionQuestion& q) {
  Json rows = Json::array();
  for (const Suggestion& one : suggestions_of(q)) {
    rows.push(Json::object({{"loss", one.loss},
                            {"parameters", one.parameters},
                            {"active_parameters", one.active},
                            {"expansion", one.expansion},
                            {"architecture", word(one.model.architecture)},
                            {"layers", one.model.layers},
                            {"hidden", one.model.hidden},
                            {"heads", one.model.heads},
                            {"kv_heads", one.model.kv_heads},
                            {"feed_forward", one.model.experts > 0 ? 0 : one.model.feed_forward},
                            {"experts", one.model.experts},
                            {"experts_per_token", one.model.experts_per_token},
                            {"expert_feed_forward", one.model.expert_feed_forward},
                            {"tokens", std::round(one.tokens)},
                            {"steps", one.steps},
                            {"global_batch", one.global_batch},
                            {"learning_rate", one.learning_rate},
                            {"gpu_hours", one.gpu_hours},
                            {"layout", to_string(one.layout.layout)}}));
  }
  return Json::object({{"schema", "shoestring.suggestion/1"},
                       {"hardware", q.hardware.name},
                       {"devices", q.devices},
                       {"gpu_hours", q.gpu_hours},
                       {"law", q.law.name},
                       {"law_source", q.law.source},
                       {"suggestions", std::move(rows)}});
}

}  // namespace shoestring
