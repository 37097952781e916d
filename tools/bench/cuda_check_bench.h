// Checks the CUDA rows of quantise, RMSNorm and GEMM against the CPU's, and times them. Needs the kernels only, so that
// it runs from a folder on a machine without the other libraries.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "kernels/base/device.h"
#include "kernels/base/workers.h"

namespace shoestring {

/// One comparison.
struct CudaCheck {
  std::string name;
  bool passed = false;
  std::string detail;  ///< what differed, or the worst error in units of its bound
};

/// One timing: the median of repetitions with a cold L2 cache, beside the least time the device's own figures allow.
struct CudaTiming {
  std::string name;
  double seconds = 0;
  double floor_seconds = 0;  ///< the larger of bytes over bandwidth and operations over peak
  double bytes_per_second = 0;
  double flops_per_second = 0;  ///< 0 for ops that only move data
  std::string error{};          ///< why it could not be taken; then there are no figures
};

/// Told of each row as soon as there is one.
using CheckObserver = std::function<void(const CudaCheck&)>;
using TimingObserver = std::function<void(const CudaTiming&)>;

/// Everything compared on `device` against the CPU; `quick` leaves out shapes that run no other code. An op that throws
/// is a failed check, not the end of the others.
std::vector<CudaCheck> check_cuda_ops(Device device, Workers& workers, CheckObserver observer = {}, bool quick = false);

/// The same ops at the sizes of real models. An op that throws is a timing with an error.
std::vector<CudaTiming> time_cuda_ops(Device device, const TimingObserver& observer = {});

/// What a run of all this is about.
struct CudaCheckParts {
  bool checks = true;
  bool timings = true;
  bool quick = false;  ///< of the checks
};

/// Runs the parts on the first device and prints rows as they come; `json_path` (unless empty) is replaced after the
/// checks and after each timing. Returns the exit code: 0; 70 when a check failed or an op could not be timed; 74 when
/// the file could not be written; 66 when there is no CUDA device, which it says.
int run_cuda_check(const std::string& json_path, const CudaCheckParts& parts = {});

}  // namespace shoestring
