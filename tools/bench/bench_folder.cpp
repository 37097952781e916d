#include "tools/bench/bench_folder.h"

#include <cstdlib>

#include "kernels/base/check.h"

namespace shoestring {

namespace fs = std::filesystem;

BenchFolder::BenchFolder() {
  std::string pattern = (fs::temp_directory_path() / "shoestring_bench_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    fail(ExitCode::io, "cannot make a folder {}; look at the rights and the room there", pattern);
  path_ = pattern;
}

BenchFolder::~BenchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace shoestring
