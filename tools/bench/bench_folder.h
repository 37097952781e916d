// A folder of a bench's own where the system keeps what is temporary, removed with all it holds; what a bench leaves
// there that is killed, the next one removes.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/base/own_folder.h"

namespace shoestring {

class BenchFolder {
 public:
  /// `what` begins its name.
  explicit BenchFolder(const char* what = "shoestring_bench_");
  std::filesystem::path operator/(const std::string& name) const { return folder_.path() / name; }

 private:
  OwnFolder folder_;
};

}  // namespace shoestring
