// What shoestring_gpu_check has found: printed as it comes, and kept in a file that is whole at any time.
#pragma once

#include <string>
#include <vector>

#include "tools/bench/cuda_check_bench.h"

namespace shoestring {

/// A JSON object: schema (1), the device's name and figures, checks, timings. A timing that could not be taken has an
/// "error" where others have figures.
class CudaReport {
 public:
  /// Writes to `json_path` when told to; never when it is empty.
  CudaReport(DeviceProperties device, std::string json_path);

  void add(const CudaCheck& check);
  void add(const CudaTiming& timing);
  /// Replaces the file by what is known so far. A file that cannot be written is said on stderr and ends nothing.
  void save();
  void print_summary() const;

  std::string to_json() const;
  /// 0; 70 when a check failed or an op could not be timed; otherwise 74 when the file was not written.
  int exit_code() const;

 private:
  DeviceProperties device_;
  std::string json_path_;
  std::vector<CudaCheck> checks_;
  std::vector<CudaTiming> timings_;
  std::size_t failed_checks_ = 0;
  std::size_t missing_timings_ = 0;
  bool saved_ = true;
};

}  // namespace shoestring
