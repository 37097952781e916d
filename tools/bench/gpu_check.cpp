// shoestring_gpu_check [JSON]: checks and times the CUDA rows of the ops on the first device of this machine.
#include <cstdio>
#include <exception>

#include "kernels/base/check.h"
#include "tools/bench/cuda_check_bench.h"

int main(int count, char** arguments) {
  try {
    return shoestring::run_cuda_check(count > 1 ? arguments[1] : "");
  } catch (const shoestring::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(shoestring::ExitCode::bug);
  }
}
