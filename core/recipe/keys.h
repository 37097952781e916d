// The one table of all recipe keys. Parsing, validation, `explain`, canonical text and the key reference all read it,
// so a key is added in one line of keys.cpp beside its member in recipe.h.
//
// Not for users of a Recipe: they include recipe.h and parse.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/recipe.h"
#include "core/recipe/units.h"

namespace shoestring {

inline constexpr double kAboveZero = 1e-300;  ///< lower bound that means "above 0"

enum class ValueType : std::uint8_t { text, whole, real, boolean, choice, list, sources };

/// What a resumed run may do with a key.
enum class OnResume : std::uint8_t { fixed, free };

struct Key {
  std::string section;  ///< "model"; "phase" stands for every [phase.NAME]
  std::string name;
  ValueType type = ValueType::text;
  Unit unit = Unit::none;
  double low = 0;  ///< bounds of numbers, both included
  double high = 0;
  std::span<const std::string_view> words;  ///< of a choice
  OnResume on_resume = OnResume::fixed;
  std::string meaning;  ///< one line

  /// Parses `text` into its member; returns what is wrong with it, empty if nothing. `phase` is used by phase keys.
  std::function<std::string(Recipe&, std::size_t phase, std::string_view text)> assign;
  /// The member as text that parses back to it.
  std::function<std::string(const Recipe&, std::size_t phase)> print;

  bool of_phase() const { return section == "phase"; }
};

/// All keys, grouped by section, in the order of recipe.h.
const std::vector<Key>& recipe_keys();

/// Section names in order; "phase" once.
const std::vector<std::string>& recipe_sections();

/// nullptr if there is no such key. `section` may be "phase.NAME".
const Key* find_key(std::string_view section, std::string_view name);

/// "phase" for "phase.NAME", else the same.
std::string_view section_kind(std::string_view section);

/// "a whole number, 1 to 4096; units Ki Mi": for messages and the reference.
std::string describe_type(const Key& key);

/// The key's default as text.
std::string default_text(const Key& key);

}  // namespace shoestring
