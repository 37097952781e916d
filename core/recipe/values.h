// Text to and from one member of a Recipe, by the member's C++ type. Private to keys.cpp.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/recipe/keys.h"
#include "core/recipe/names.h"

namespace shoestring::values {

std::string out_of_bounds(double value, const Key& key);        // empty if within
std::string parse_boolean(std::string_view text, bool& value);  // each returns what is wrong, or empty
std::string parse_text(std::string_view text, std::string& value);
std::string parse_list(std::string_view text, std::vector<std::string>& value);
std::string parse_sources(std::string_view text, std::vector<SourceSpec>& value);
std::string not_a_word(std::string_view text, std::span<const std::string_view> words);
std::string print_sources(const std::vector<SourceSpec>& value);
std::string print_list(const std::vector<std::string>& value);

template <class Value>
constexpr ValueType type_of() {
  if constexpr (std::is_enum_v<Value>)
    return ValueType::choice;
  else if constexpr (std::same_as<Value, bool>)
    return ValueType::boolean;
  else if constexpr (std::integral<Value>)
    return ValueType::whole;
  else if constexpr (std::floating_point<Value>)
    return ValueType::real;
  else if constexpr (std::same_as<Value, std::string>)
    return ValueType::text;
  else if constexpr (std::same_as<Value, std::vector<SourceSpec>>)
    return ValueType::sources;
  else
    return ValueType::list;
}

template <class Value>
std::string parse(std::string_view text, const Key& key, Value& value) {
  if constexpr (std::is_enum_v<Value>) {
    const auto words = enum_words<Value>();
    const auto found = std::find(words.begin(), words.end(), text);
    if (found == words.end()) return not_a_word(text, words);
    value = static_cast<Value>(found - words.begin());
    return {};
  } else if constexpr (std::same_as<Value, bool>) {
    return parse_boolean(text, value);
  } else if constexpr (std::integral<Value>) {
    const WholeQuantity parsed = parse_whole(text, key.unit);
    if (!parsed.mistake.empty()) return parsed.mistake;
    std::string mistake = out_of_bounds(static_cast<double>(parsed.value), key);
    if (mistake.empty()) value = static_cast<Value>(parsed.value);
    return mistake;
  } else if constexpr (std::floating_point<Value>) {
    const Quantity parsed = parse_quantity(text, key.unit);
    if (!parsed.mistake.empty()) return parsed.mistake;
    std::string mistake = out_of_bounds(parsed.value, key);
    if (mistake.empty()) value = parsed.value;
    return mistake;
  } else if constexpr (std::same_as<Value, std::string>) {
    return parse_text(text, value);
  } else if constexpr (std::same_as<Value, std::vector<SourceSpec>>) {
    return parse_sources(text, value);
  } else {
    return parse_list(text, value);
  }
}

template <class Value>
std::string print(const Key& key, const Value& value) {
  if constexpr (std::is_enum_v<Value>)
    return std::string(word(value));
  else if constexpr (std::same_as<Value, bool>)
    return value ? "yes" : "no";
  else if constexpr (std::integral<Value>)
    return fmt::format("{}", value);
  else if constexpr (std::floating_point<Value>)
    return print_quantity(value, key.unit);
  else if constexpr (std::same_as<Value, std::string>)
    return value;
  else if constexpr (std::same_as<Value, std::vector<SourceSpec>>)
    return print_sources(value);
  else
    return print_list(value);
}

}  // namespace shoestring::values
