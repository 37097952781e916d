#include "tools/generation_options.h"

#include <fmt/format.h>

#include <memory>

#include "core/recipe/names.h"
#include "core/training/work_progress.h"
#include "kernels/base/check.h"
#include "tools/messages.h"

namespace shoestring {
namespace {

constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;

constexpr PrecisionPolicy kOfTests = PrecisionPolicy::fp64;  // of training: no text is written in it

PrecisionPolicy policy_named(const std::string& word) {
  const std::span<const std::string_view> words = enum_words<PrecisionPolicy>();
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == word && static_cast<PrecisionPolicy>(i) != kOfTests) return static_cast<PrecisionPolicy>(i);
  }
  std::vector<std::string_view> offered(words.begin(), words.end());
  offered.erase(offered.begin() + static_cast<std::ptrdiff_t>(kOfTests));
  fail(ExitCode::usage, "--precision {}: it is one of {}", word, fmt::join(offered, ", "));
}

}  // namespace

std::vector<Option> opening_options() {
  return {{"precision", "POLICY", "fp32, bf16, fp8_block, ... (as the run computes; bf16 for other folders)"},
          {"context", "N", "tokens that a text and its prompt may have together (what the model has positions for)"},
          {"latents", "", "of models with latent attention keep the latents: less memory, other rounding"},
          {"threads", "N", "worker threads (all cores)"}};
}

OpenModelOptions opening_of(const Arguments& arguments) {
  OpenModelOptions options;
  if (arguments.has("precision")) options.policy = policy_named(arguments.text("precision"));
  options.threads = static_cast<int>(arguments.integer("threads", 0, 0, 1024));
  options.latents = arguments.has("latents");
  options.capacity = arguments.integer("context", 0, 1, kMostTokens);
  options.say = [](const std::string& text) { say("{}", text); };
  options.progress = [line = std::make_shared<WorkProgress>()](std::int64_t done, std::int64_t all) {
    line->show({.doing = "reading weights", .done_bytes = done, .all_bytes = all});
    if (done == all) line->wipe();
  };
  return options;
}

std::vector<Option> sampling_options(const SamplingSettings& defaults) {
  return {{"temperature", "T", fmt::format("0 takes the likeliest token ({})", defaults.temperature)},
          {"top-k", "N", fmt::format("of the N likeliest tokens only; 0: all ({})", defaults.top_k)},
          {"top-p", "P", fmt::format("of the likeliest tokens that together have this share ({})", defaults.top_p)},
          {"min-p", "P", fmt::format("of tokens this many times as likely as the likeliest ({})", defaults.min_p)}};
}

SamplingSettings sampling_of(const Arguments& arguments, const SamplingSettings& defaults) {
  SamplingSettings settings;
  settings.temperature = arguments.real("temperature", defaults.temperature, 0, 100, Unit::none);
  settings.top_k = arguments.integer("top-k", defaults.top_k, 0, kMostTokens);
  settings.top_p = arguments.real("top-p", defaults.top_p, 0, 1, Unit::none);
  settings.min_p = arguments.real("min-p", defaults.min_p, 0, 1, Unit::none);
  check_sampling(settings);
  return settings;
}

}  // namespace shoestring
