// What a recipe says once everything is filled in: for people (explain) and for comparing two recipes (canonical text).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/parse.h"

namespace shoestring {

/// Effective value, origin and meaning of `key` ("model.layers"), of a section ("model"), or of every key if empty.
/// Throws Error(usage) for an unknown key, naming the nearest.
std::string explain(const RecipeReading& reading, std::string_view key = {});

/// The reference of all keys (name, type and unit, default, bounds, meaning) as Markdown.
std::string key_reference();

/// The recipe with every key written out in declaration order: parses back to the same Recipe.
std::string canonical_text(const Recipe& recipe);

/// The same as a recipe of its own, which a reader takes (validate.h): keys that nothing reads are comments. They may
/// stand in a recipe that the command line, or another recipe's include, says otherwise about, and not beside it.
std::string standalone_text(const Recipe& recipe);

/// 16 hex digits over canonical_text; names a recipe in ledgers and messages (it is no defence against forgery).
std::string recipe_hash(const Recipe& recipe);

/// One key that differs between two recipes.
struct RecipeDifference {
  std::string key;
  std::string before;
  std::string now;
};

/// Keys that differ and that a resumed run may not change, because the weights depend on them; not those that nothing
/// reads. Keys that cost, place,
/// threads, layout, evaluation and checkpoints hang on are free (keys.cpp says which; recipes/README.md lists them).
std::vector<RecipeDifference> resume_differences(const Recipe& before, const Recipe& now);

/// All keys that differ.
std::vector<RecipeDifference> all_differences(const Recipe& before, const Recipe& now);

/// Keys that are not what they are by default, which is `before`. Of phases: all that have a default of their own.
std::vector<RecipeDifference> changed_from_default(const Recipe& recipe);

/// Throws Error(bad_recipe) that lists resume_differences, if there are any.
void check_resume(const Recipe& before, const Recipe& now);

}  // namespace shoestring
