#include "core/budget/plan_layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <span>

#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kMostDevices = 1 << 20;
constexpr std::array<std::string_view, 3> kShardings = {"none", "optimizer", "full"};
constexpr std::array<std::string_view, 3> kRecomputes = {"none", "selective", "full"};

struct CountWord {
  std::string_view word;
  int PlanLayout::*member;
};
constexpr CountWord kCounts[] = {{"devices", &PlanLayout::devices},        {"tensor", &PlanLayout::tensor},
                                 {"context", &PlanLayout::context},        {"pipeline", &PlanLayout::pipeline},
                                 {"chunks", &PlanLayout::chunks},          {"expert", &PlanLayout::expert},
                                 {"micro_batch", &PlanLayout::micro_batch}};

template <class Enum>
Enum word_of(std::string_view key, std::string_view value, std::span<const std::string_view> words) {
  const auto found = std::find(words.begin(), words.end(), value);
  if (found == words.end()) {
    std::string known;
    for (const std::string_view word : words) known += (known.empty() ? "" : ", ") + std::string(word);
    fail(ExitCode::usage, "layout: {}={} is none of the words that are allowed: {}", key, quote_name(value), known);
  }
  return static_cast<Enum>(found - words.begin());
}

int count_of(std::string_view key, std::string_view value) {
  int count = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), count);
  if (error != std::errc{} || end != value.data() + value.size() || count < 1 || count > kMostDevices) {
    fail(ExitCode::usage, "layout: {}={} must be a whole number from 1 to {}", key, quote_text(value), kMostDevices);
  }
  return count;
}

void take_word(std::string_view word, PlanLayout& layout) {
  const std::size_t equals = word.find('=');
  const std::string_view key = word.substr(0, equals);
  const std::string_view value = equals == std::string_view::npos ? "" : word.substr(equals + 1);
  for (const CountWord& count : kCounts) {
    if (key != count.word) continue;
    layout.*count.member = count_of(key, value);
    return;
  }
  if (key == "schedule") {
    layout.schedule = word_of<ScheduleName>(key, value, enum_words<ScheduleName>());
  } else if (key == "sharding") {
    layout.sharding = word_of<Sharding>(key, value, kShardings);
  } else if (key == "recompute") {
    layout.recompute = word_of<Recompute>(key, value, kRecomputes);
  } else {
    std::string known;
    for (const CountWord& count : kCounts) known += std::string(count.word) + ", ";
    fail(ExitCode::usage, "layout: unknown word {}; there are: {}schedule, sharding, recompute; write pipeline=8, say",
         quote_name(word), known);
  }
}

}  // namespace

std::string to_string(const PlanLayout& layout) {
  std::string text = fmt::format("data {}", layout.data());
  const auto axis = [&](std::string_view name, int size) {
    if (size > 1) text += fmt::format(", {} {}", name, size);
  };
  axis("tensor", layout.tensor);
  axis("context", layout.context);
  axis("pipeline", layout.pipeline);
  if (layout.pipeline > 1) text += fmt::format(" ({})", enum_words<ScheduleName>()[static_cast<int>(layout.schedule)]);
  axis("chunks", layout.chunks);
  axis("expert", layout.expert);
  if (layout.sharding == Sharding::full) text += ", full shards";
  if (layout.recompute != Recompute::none) {
    text += fmt::format(", {} recomputation", kRecomputes[static_cast<std::size_t>(layout.recompute)]);
  }
  axis("micro-batch", layout.micro_batch);
  return text;
}

PlanLayout parse_layout(std::string_view text, PlanLayout base) {
  constexpr std::string_view kBlanks = " \t,";
  std::set<std::string_view> keys;
  for (std::size_t begin = text.find_first_not_of(kBlanks); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    take_word(word, base);
    const std::string_view key = word.substr(0, word.find('='));
    if (!keys.insert(key).second) fail(ExitCode::usage, "layout: {} is given twice; keep one", key);
    begin = text.find_first_not_of(kBlanks, end);
  }
  return base;
}

}  // namespace shoestring
