// Recipes and hardware files that came with the program, wherever it lies and from whatever folder it is started.
#pragma once

#include <filesystem>
#include <vector>

namespace shoestring {

/// Where they may lie, in the order in which they are looked for: recipes/ beside the program (tools/package.sh),
/// beside its folder (a build in the source tree), and share/shoestring/recipes beside it (cmake --install).
std::vector<std::filesystem::path> installed_recipe_folders();

/// `asked` where such a file is there, or where it names a folder. Otherwise the recipe of that name that came with the
/// program, ".recipe" left out or not; `asked` where there is none.
std::filesystem::path find_recipe(const std::filesystem::path& asked,
                                  const std::vector<std::filesystem::path>& folders = installed_recipe_folders());

}  // namespace shoestring
