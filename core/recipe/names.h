// The words that stand for the recipe's enumerators, one list per enum in enumerator order: files, messages and
// metrics all take them from here.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "core/recipe/recipe.h"

namespace shoestring {

/// All words of an enum, in order of its values (which count from 0).
template <class Enum>
std::span<const std::string_view> enum_words();

template <>
std::span<const std::string_view> enum_words<RunDevice>();
template <>
std::span<const std::string_view> enum_words<AllowReference>();
template <>
std::span<const std::string_view> enum_words<Architecture>();
template <>
std::span<const std::string_view> enum_words<RopeScalingKind>();
template <>
std::span<const std::string_view> enum_words<RouterKindSpec>();
template <>
std::span<const std::string_view> enum_words<PrecisionPolicy>();
template <>
std::span<const std::string_view> enum_words<ScaleFormat>();
template <>
std::span<const std::string_view> enum_words<LinearFormat>();
template <>
std::span<const std::string_view> enum_words<MomentFormat>();
template <>
std::span<const std::string_view> enum_words<DispatchFormat>();
template <>
std::span<const std::string_view> enum_words<ScheduleName>();
template <>
std::span<const std::string_view> enum_words<DataIo>();
template <>
std::span<const std::string_view> enum_words<OptimizerName>();
template <>
std::span<const std::string_view> enum_words<StateMemory>();
template <>
std::span<const std::string_view> enum_words<LearningRateKind>();
template <>
std::span<const std::string_view> enum_words<Horizon>();
template <>
std::span<const std::string_view> enum_words<ObjectiveName>();
template <>
std::span<const std::string_view> enum_words<LossMean>();
template <>
std::span<const std::string_view> enum_words<LongDocumentsSpec>();
template <>
std::span<const std::string_view> enum_words<OnRepeat>();

template <class Enum>
std::string_view word(Enum value) {
  return enum_words<Enum>()[static_cast<std::size_t>(value)];
}

/// Insertions, deletions, replacements and swaps of neighbouring letters that lead from one word to the other; `most` +
/// 1 for words that are further apart.
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t most = 1 << 20);

/// The word nearest to `text` by edit distance, or empty if none is near enough to be meant.
std::string_view nearest_word(std::string_view text, std::span<const std::string_view> words);

}  // namespace shoestring
