#include "tools/bench/bench_folder.h"

namespace shoestring {

BenchFolder::BenchFolder(const char* what) : folder_(std::filesystem::temp_directory_path() / what) {}

}  // namespace shoestring
