#include "core/recipe/installed.h"

#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

fs::path program_folder() {
  std::error_code unknown;
  return fs::read_symlink("/proc/self/exe", unknown).parent_path();
}

}  // namespace

std::vector<fs::path> installed_recipe_folders() {
  const fs::path program = program_folder();
  const fs::path above = program.parent_path();
  return {program / "recipes", above / "recipes", above / "share" / "shoestring" / "recipes"};
}

fs::path find_recipe(const fs::path& asked, const std::vector<fs::path>& folders) {
  if (asked.has_parent_path() || type_of(asked) != fs::file_type::not_found) return asked;
  for (const fs::path& folder : folders) {
    for (const char* ending : {"", ".recipe"}) {
      const fs::path file = folder / (asked.string() + ending);
      if (type_of(file) == fs::file_type::regular) return file;
    }
  }
  return asked;
}

}  // namespace shoestring
