#include "kernels/base/presence.h"

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

bool is_present(const std::filesystem::path& path) {
  if (type_of(path) != std::filesystem::file_type::not_found) return true;
  std::error_code none;
  if (!std::filesystem::is_symlink(path, none)) return false;
  fail(ExitCode::missing_input,
       "{}: is a link to {}, which is not there; put that back (is a disk not mounted?), or remove the link",
       path.string(), std::filesystem::read_symlink(path, none).string());
}

}  // namespace shoestring
