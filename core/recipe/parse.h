// From a recipe file and command-line overrides to a typed, checked Recipe that remembers where each value came from.
//
// The file is INI: [section], key = value, '#' starts a comment. `include = base.recipe` may stand before the first
// section (a path relative to the including file; the including file wins). Overrides "--section.key=value" win over
// both. Keys of [model] left open are those of the folder that model.from names (model_from.h). Every mistake of every
// file is found in one pass and reported together with its line and the nearest right word.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace shoestring {

inline constexpr std::int64_t kRecipeBytesLimit = 1 << 20;  ///< of one file
inline constexpr std::int64_t kRecipeLineLimit = 64 << 10;  ///< bytes of one line
inline constexpr int kIncludeDepthLimit = 16;

/// Origin::layer of what no recipe says: a default, or a model folder's config.json.
inline constexpr int kUnwrittenLayer = 1 << 20;

/// Where a value came from.
struct Origin {
  std::string file;             ///< empty: default; "command line": an override
  int line = 0;                 ///< from 1; 0 where there is none
  std::string text;             ///< as written
  int layer = kUnwrittenLayer;  ///< of two places the lesser wins: 0 the command line, 1 the recipe, then its includes

  /// "default", "command line" or "recipes/tiny.recipe:12".
  std::string place() const;
};

/// By dotted key: "model.layers", "phase.pretrain.sequence". Keys left at their default are absent.
using Origins = std::map<std::string, Origin>;

/// One thing wrong with a recipe.
struct Mistake {
  Origin origin;     ///< file empty where no line is to blame (something is missing)
  std::string key;   ///< dotted; empty where no key is concerned
  std::string text;  ///< what is wrong, quoting the offending text, and what to write instead

  /// "tiny.recipe:12: unknown key 'model.layer'; did you mean 'model.layers'?"
  std::string line() const;
};

struct RecipeReading {
  Recipe recipe;  ///< meaningful only if there are no mistakes
  Origins origins;
  std::vector<std::filesystem::path> files;  ///< the recipe first, then what it includes
  std::vector<Mistake> mistakes;             ///< in file and line order; parsing, then contradictions
};

/// Reads without throwing on mistakes of the recipe. Throws Error(missing_input) if `file` itself is not there.
/// `overrides` are raw arguments, each "--section.key=value".
RecipeReading read_recipe(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// As read_recipe, but throws Error(bad_recipe) that lists every mistake.
RecipeReading parse_recipe(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// For text in no file (a checkpoint's copy, tests), called `name`. Includes are refused, model.from is not looked at:
/// such a text has every key. parse_recipe_text leaves its schedule unjudged: what has been trained stays readable.
RecipeReading read_recipe_text(const std::string& text, const std::string& name,
                               std::span<const std::string> overrides = {});
RecipeReading parse_recipe_text(const std::string& text, const std::string& name,
                                std::span<const std::string> overrides = {});

/// Whether an argument has the form of an override ("--word.word=..."), so that a command can set it apart.
bool looks_like_override(std::string_view argument);

}  // namespace shoestring
