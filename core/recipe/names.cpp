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
constexpr Word kObjectiveName[] = {"automatic", "next_token", "masked"};
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

std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t most) {
  // Optimal string alignment: insertions, deletions, replacements and swaps of neighbours cost 1. A cell is no less
  // than its distance from the diagonal, so few are looked at; of the table three rows are kept.
  const std::size_t far = std::min(most, a.size() + b.size()) + 1;
  const std::size_t columns = b.size() + 1;
  std::vector<std::size_t> table(3 * columns, far);
  const auto row = [&](std::size_t i) { return table.data() + i % 3 * columns; };
  for (std::size_t j = 0; j <= std::min(b.size(), far); ++j) row(0)[j] = j;
  bool near_before = true;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t* here = row(i);
    const std::size_t* above = row(i - 1);
    std::fill(here, here + columns, far);
    here[0] = std::min(i, far);
    bool near = i < far;
    for (std::size_t j = i > far ? i - far : 1; j <= std::min(b.size(), i + far); ++j) {
      here[j] = std::min({above[j] + 1, here[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1), far});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        here[j] = std::min(here[j], row(i - 2)[j - 2] + 1);
      }
      near = near || here[j] < far;
    }
    if (!near && !near_before) return far;
    near_before = near;
  }
  return row(a.size())[b.size()];
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
    const std::string known = folded(candidate);
    const std::size_t distance = part ? (meant == known ? 0 : 1) : edit_distance(meant, known, best_distance - 1);
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
