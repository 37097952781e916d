#include "core/recipe/explain.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "core/recipe/keys.h"
#include "core/recipe/names.h"
#include "core/recipe/scan.h"
#include "core/recipe/validate.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// A key of the table as it stands in one recipe: phase keys once per phase.
struct Place {
  const Key* key = nullptr;
  std::size_t phase = 0;
  std::string section;

  std::string dotted() const { return section + "." + key->name; }
};

/// All places of a recipe, section by section.
std::vector<Place> places_of(const Recipe& recipe) {
  std::vector<Place> places;
  for (const std::string& section : recipe_sections()) {
    const std::size_t repeats = section == "phase" ? recipe.phases.size() : 1;
    for (std::size_t phase = 0; phase < repeats; ++phase) {
      const std::string name = section == "phase" ? "phase." + recipe.phases[phase].name : section;
      for (const Key& key : recipe_keys()) {
        if (key.section == section) places.push_back({&key, phase, name});
      }
    }
  }
  return places;
}

std::string shown(const std::string& value) { return value.empty() ? "(empty)" : value; }

std::string explain_one(const RecipeReading& reading, const Place& place, bool whole) {
  const auto origin = reading.origins.find(place.dotted());
  const std::string value = place.key->print(reading.recipe, place.phase);
  const std::string from = origin == reading.origins.end() ? "default" : origin->second.place();
  std::string text = fmt::format("{} = {}    ({})\n    {}\n", place.dotted(), shown(value), from, place.key->meaning);
  if (whole) {
    text += fmt::format("    {}; default {}\n", describe_type(*place.key), shown(default_text(*place.key)));
    if (origin != reading.origins.end()) text += fmt::format("    written as: {}\n", origin->second.text);
  }
  return text;
}

template <class Counts>
std::vector<RecipeDifference> differences_of(const Recipe& before, const Recipe& now, const Counts& counts) {
  const auto values_of = [&](const Recipe& recipe) {
    std::vector<std::pair<std::string, std::string>> values;
    for (const Place& place : places_of(recipe)) {
      if (counts(*place.key)) values.emplace_back(place.dotted(), place.key->print(recipe, place.phase));
    }
    return values;
  };
  const auto old_values = values_of(before);
  const auto new_values = values_of(now);
  const auto value_in = [](const auto& values, const std::string& key) {
    const auto found = std::find_if(values.begin(), values.end(), [&](const auto& item) { return item.first == key; });
    return found == values.end() ? std::string("(absent)") : found->second;
  };
  std::vector<RecipeDifference> differences;
  for (const auto& [key, value] : old_values) {
    const std::string other = value_in(new_values, key);
    if (other != value) differences.push_back({key, value, other});
  }
  for (const auto& [key, value] : new_values) {
    if (value_in(old_values, key) == "(absent)") differences.push_back({key, "(absent)", value});
  }
  return differences;
}

}  // namespace

std::string explain(const RecipeReading& reading, std::string_view key) {
  const std::vector<Place> places = places_of(reading.recipe);
  std::string text;
  for (const Place& place : places) {
    const bool exact = place.dotted() == key || place.key->section + "." + place.key->name == key;
    if (exact || key.empty() || place.section == key || place.key->section == key) {
      text += explain_one(reading, place, exact);
    }
  }
  if (!text.empty()) return text;
  std::vector<std::string> names;
  for (const Place& place : places) {
    names.push_back(place.dotted());
    if (place.key->name == key) return explain(reading, names.back());  // the section may be left out
  }
  std::vector<std::string_view> words(names.begin(), names.end());
  words.insert(words.end(), recipe_sections().begin(), recipe_sections().end());
  for (const Place& place : places) words.push_back(place.key->name);
  const std::string_view near = nearest_word(key, words);
  fail(ExitCode::usage, "there is no key {}{}", quote_name(key),
       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
}

std::string key_reference() {
  std::string text;
  std::string section;
  for (const Key& key : recipe_keys()) {
    if (key.section != section) {
      section = key.section;
      text += fmt::format("\n## [{}]\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
                          key.of_phase() ? "phase.NAME" : section);
    }
    std::string type = describe_type(key);
    for (std::size_t bar = type.find('|'); bar != std::string::npos; bar = type.find('|', bar + 2))
      type.insert(bar, "\\");
    text += fmt::format("| `{}` | {} | {} | {} |\n", key.name, type, default_text(key), key.meaning);
  }
  return text;
}

namespace {

/// Every key that has a value, as a comment where it is not what `read` says.
std::string text_of(const Recipe& recipe, const Recipe& read) {
  std::string text;
  std::string section;
  for (const Place& place : places_of(recipe)) {
    if (place.section != section) {
      section = place.section;
      text += fmt::format("[{}]\n", section);
    }
    const std::string value = place.key->print(recipe, place.phase);
    if (value.empty()) continue;
    const bool unread = value != place.key->print(read, place.phase);
    text += fmt::format("{}{} = {}{}\n", unread ? "# " : "", place.key->name, value,
                        unread ? "    (nothing reads it)" : "");
  }
  return text;
}

}  // namespace

std::string canonical_text(const Recipe& recipe) { return text_of(recipe, recipe); }
std::string standalone_text(const Recipe& recipe) { return text_of(recipe, without_unread_keys(recipe)); }

std::string recipe_hash(const Recipe& recipe) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char letter : canonical_text(recipe)) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  }
  return fmt::format("{:016x}", hash);
}

std::vector<RecipeDifference> all_differences(const Recipe& before, const Recipe& now) {
  return differences_of(before, now, [](const Key&) { return true; });
}

std::vector<RecipeDifference> resume_differences(const Recipe& before, const Recipe& now) {
  std::vector<RecipeDifference> differences =
      differences_of(without_unread_keys(before), without_unread_keys(now),
                     [](const Key& key) { return key.on_resume == OnResume::fixed; });
  // The two differ on marked shards alone, where the plan of the data then differs too (Loader::plan).
  const auto alike = [](const RecipeDifference& difference) {
    const auto plain = [](const std::string& value) { return value == "automatic" || value == "next_token"; };
    return difference.key.ends_with(".objective") && plain(difference.before) && plain(difference.now);
  };
  std::erase_if(differences, alike);
  return differences;
}

std::vector<RecipeDifference> changed_from_default(const Recipe& recipe) {
  std::vector<RecipeDifference> differences;
  for (const Place& place : places_of(recipe)) {
    const std::string now = place.key->print(recipe, place.phase);
    const std::string otherwise = default_text(*place.key);
    if (now != otherwise) differences.push_back({place.dotted(), otherwise, now});
  }
  return differences;
}

void check_resume(const Recipe& before, const Recipe& now) {
  const std::vector<RecipeDifference> differences = resume_differences(before, now);
  if (differences.empty()) return;
  std::string text = "the run was begun with another recipe; a resumed run may not change";
  for (const RecipeDifference& difference : differences) {
    text += fmt::format("\n  {}: {} was {}", difference.key, shown(difference.now), shown(difference.before));
  }
  text +=
      "\nput the recipe back, begin a new run under another run.name, or go on all the same with --allow-recipe-change";
  throw Error(ExitCode::bad_recipe, text);
}

}  // namespace shoestring
