#include "core/recipe/names.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdint>
#include <string>
#include <vector>

namespace shoestring {
namespace {

using Word = std::string_view;

constexpr Word kRunDevice[] = {"automatic", "cpu", "cuda"};
constexpr Word kAllowReference[] = {"automatic", "yes", "no"};
constexpr Word kArchitecture[] = {"llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v2", "deepseek_v3"};
constexpr Word kRopeScalingKind[] = {"none", "llama3", "yarn"};
constexpr Word kRouterKind[] = {"softmax", "sigmoid", "sqrt_softplus"};
constexpr Word kPrecisionPolicy[] = {"fp64", "fp32", "bf16", "fp8_block", "fp8_tensor", "mxfp8"};
constexpr Word kScaleFormat[] = {"f32", "power_of_two"};
constexpr Word kLinearFormat[] = {"policy", "bf16", "fp32"};
constexpr Word kMomentFormat[] = {"f32", "bf16"};
constexpr Word kDispatchFormat[] = {"activation", "fp8"};
constexpr Word kScheduleName[] = {"automatic", "1f1b", "interleaved", "zb_h1", "zb_v", "dualpipev"};
constexpr Word kDataIo[] = {"mmap", "pread"};
constexpr Word kOptimizerName[] = {"adamw", "muon"};
constexpr Word kStateMemory[] = {"device", "host"};
constexpr Word kLearningRateKind[] = {"warmup_stable_decay", "cosine", "deepseek", "constant"};
constexpr Word kHorizon[] = {"budget", "tokens", "steps"};
constexpr Word kObjectiveName[] = {"next_token", "masked"};
constexpr Word kLossMean[] = {"tokens", "documents"};
constexpr Word kLongDocuments[] = {"automatic", "split", "cut", "drop"};
constexpr Word kOnRepeat[] = {"clip", "go_back"};

constexpr std::size_t kLongestWord = 64;  // longer texts are no misspelt word

char folded(char letter) {
  return letter == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
}

std::string folded(std::string_view text) {
  std::string result;
  for (const char letter : text) result += folded(letter);
  return result;
}

/// Which letters stand in a word, folded: one bit for each remainder by 64.
std::uint64_t letters_of(std::string_view text) {
  std::uint64_t letters = 0;
  for (const char letter : text) letters |= std::uint64_t{1} << (static_cast<unsigned char>(folded(letter)) % 64);
  return letters;
}

/// No more than the distance of the folded words, for a fraction of its cost: an edit changes the length by one at
/// most, and of the letters that stand in a word two.
std::size_t distance_at_least(std::string_view meant, std::uint64_t letters, std::string_view candidate) {
  const std::size_t longer = std::max(meant.size(), candidate.size()) - std::min(meant.size(), candidate.size());
  const int changed = std::popcount(letters ^ letters_of(candidate));
  return std::max(longer, static_cast<std::size_t>(changed + 1) / 2);
}

}  // namespace

template <>
std::span<const Word> enum_words<RunDevice>() {
  return kRunDevice;
}
template <>
std::span<const Word> enum_words<AllowReference>() {
  return kAllowReference;
}
template <>
std::span<const Word> enum_words<Architecture>() {
  return kArchitecture;
}
template <>
std::span<const Word> enum_words<RopeScalingKind>() {
  return kRopeScalingKind;
}
template <>
std::span<const Word> enum_words<RouterKindSpec>() {
  return kRouterKind;
}
template <>
std::span<const Word> enum_words<PrecisionPolicy>() {
  return kPrecisionPolicy;
}
template <>
std::span<const Word> enum_words<ScaleFormat>() {
  return kScaleFormat;
}
template <>
std::span<const Word> enum_words<LinearFormat>() {
  return kLinearFormat;
}
template <>
std::span<const Word> enum_words<MomentFormat>() {
  return kMomentFormat;
}
template <>
std::span<const Word> enum_words<DispatchFormat>() {
  return kDispatchFormat;
}
template <>
std::span<const Word> enum_words<ScheduleName>() {
  return kScheduleName;
}
template <>
std::span<const Word> enum_words<DataIo>() {
  return kDataIo;
}
template <>
std::span<const Word> enum_words<OptimizerName>() {
  return kOptimizerName;
}
template <>
std::span<const Word> enum_words<StateMemory>() {
  return kStateMemory;
}
template <>
std::span<const Word> enum_words<LearningRateKind>() {
  return kLearningRateKind;
}
template <>
std::span<const Word> enum_words<Horizon>() {
  return kHorizon;
}
template <>
std::span<const Word> enum_words<ObjectiveName>() {
  return kObjectiveName;
}
template <>
std::span<const Word> enum_words<LossMean>() {
  return kLossMean;
}
template <>
std::span<const Word> enum_words<LongDocumentsSpec>() {
  return kLongDocuments;
}
template <>
std::span<const Word> enum_words<OnRepeat>() {
  return kOnRepeat;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment: insertions, deletions, replacements and swaps of neighbours cost 1.
  const std::size_t columns = b.size() + 1;
  std::vector<std::size_t> table((a.size() + 1) * columns);
  const auto at = [&](std::size_t i, std::size_t j) -> std::size_t& { return table[i * columns + j]; };
  for (std::size_t i = 0; i <= a.size(); ++i) at(i, 0) = i;
  for (std::size_t j = 0; j <= b.size(); ++j) at(0, j) = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
      }
    }
  }
  return table.back();
}

std::string_view nearest_word(std::string_view text, std::span<const std::string_view> words) {
  if (text.empty() || text.size() > kLongestWord) return {};
  const std::string meant = folded(text);
  const std::uint64_t letters = letters_of(meant);
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, text.size() / 3) + 1;  // beyond what any word is allowed
  for (const std::string_view candidate : words) {
    // A word cut short or run on ("gpu_hour", "micro_batch_size") is meant as often as a misspelt one.
    const bool part = meant.size() >= 3 && (candidate.starts_with(meant) || meant.starts_with(candidate));
    if (!part && distance_at_least(meant, letters, candidate) >= best_distance) continue;
    std::size_t distance = edit_distance(meant, folded(candidate));
    if (part) distance = std::min<std::size_t>(distance, 1);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  if (best.empty()) return {};
  const std::size_t allowed = std::max<std::size_t>(2, std::min(text.size(), best.size()) / 3);
  return best_distance <= allowed && best_distance < text.size() ? best : std::string_view{};
}

}  // namespace shoestring
