// Gives a fuzz target every file of the folders named on the command line: the seeds, and what fuzzing has found
// before.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/target.h"

int main(int count, char** folders) {
  namespace fs = std::filesystem;
  int files = 0;
  for (int i = 1; i < count; ++i) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folders[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
      std::fprintf(stderr, "%s\n", entry.path().c_str());  // the last one named is the one that ends the process
      shoestring::fuzz::fuzz_one({reinterpret_cast<const std::uint8_t*>(content.data()), content.size()});
      ++files;
    }
  }
  std::printf("%d files\n", files);
  return files > 0 ? 0 : 66;  // a folder of seeds that is empty tests nothing
}
