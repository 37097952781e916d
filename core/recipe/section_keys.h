// How a row of the table of keys is made from a member of a section's struct. Internal to keys.cpp.
#pragma once

#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/recipe/keys.h"
#include "core/recipe/names.h"
#include "core/recipe/values.h"

namespace shoestring {

/// Bounds and unit of a number; ignored by other types.
struct Limits {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
  Unit unit = Unit::none;
};

/// Adds the keys of one section; `at` gives the section's struct within a Recipe.
template <class Section, class At>
class SectionKeys {
 public:
  SectionKeys(std::vector<Key>& keys, std::string section, At at)
      : keys_(keys), section_(std::move(section)), at_(at) {}

  template <class Value>
  SectionKeys& key(std::string name, Value Section::*member, Limits limits, std::string meaning,
                   OnResume on_resume = OnResume::fixed) {
    Key key;
    key.section = section_;
    key.name = std::move(name);
    key.type = values::type_of<Value>();
    key.unit = limits.unit;
    key.low = limits.low;
    key.high = limits.high;
    if constexpr (std::is_enum_v<Value>) key.words = enum_words<Value>();
    key.on_resume = on_resume;
    key.meaning = std::move(meaning);
    const Key shape = key;  // without the functions
    key.assign = [shape, member, at = at_](Recipe& recipe, std::size_t phase, std::string_view text) {
      return values::parse<Value>(text, shape, at(recipe, phase).*member);
    };
    key.print = [shape, member, at = at_](const Recipe& recipe, std::size_t phase) {
      return values::print<Value>(shape, at(recipe, phase).*member);
    };
    keys_.push_back(std::move(key));
    return *this;
  }

 private:
  std::vector<Key>& keys_;
  std::string section_;
  At at_;
};

template <class Section>
auto section_keys(std::vector<Key>& keys, std::string name, Section Recipe::*member) {
  const auto at = [member](auto& recipe, std::size_t) -> auto& { return recipe.*member; };
  return SectionKeys<Section, decltype(at)>(keys, std::move(name), at);
}

}  // namespace shoestring
