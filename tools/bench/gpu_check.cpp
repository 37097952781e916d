// shoestring_gpu_check [--checks] [--timings] [--quick] [JSON]: checks and times the CUDA rows of the ops on the first
// device of this machine; one of the two where it alone is named, and with --quick without shapes that run no other
// code.
#include <cstdio>
#include <exception>
#include <string>

#include "kernels/base/check.h"
#include "tools/bench/cuda_check_bench.h"

int main(int count, char** arguments) {
  try {
    shoestring::CudaCheckParts parts;
    std::string json_path;
    bool checks = false, timings = false;
    for (int i = 1; i < count; ++i) {
      const std::string word = arguments[i];
      if (word == "--checks") {
        checks = true;
      } else if (word == "--timings") {
        timings = true;
      } else if (word == "--quick") {
        parts.quick = true;
      } else if (word.starts_with('-') || !json_path.empty()) {
        std::fprintf(stderr, "%s: usage: shoestring_gpu_check [--checks] [--timings] [--quick] [JSON]\n", word.c_str());
        return static_cast<int>(shoestring::ExitCode::usage);
      } else {
        json_path = word;
      }
    }
    parts.checks = checks || !timings;
    parts.timings = timings || !checks;
    return shoestring::run_cuda_check(json_path, parts);
  } catch (const shoestring::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(shoestring::ExitCode::bug);
  }
}
