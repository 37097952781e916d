#include "tools/bench/cuda_check_bench.h"

#include <utility>

#include "kernels/base/check.h"
#include "tools/bench/cuda_compare.h"
#include "tools/bench/cuda_report.h"

namespace shoestring {

std::vector<CudaCheck> check_cuda_ops(Device device, Workers& workers, CheckObserver observer, bool quick) {
  cuda_compare::Bench bench{Stream(workers), Stream(device), std::move(observer), {}};
  bench.quick = quick;
  cuda_compare::check_moves(bench);
  cuda_compare::check_ops(bench);
  cuda_compare::check_elements(bench);
  cuda_compare::check_experts(bench);
  cuda_compare::check_blocks(bench);
  cuda_compare::check_fused(bench);
  cuda_compare::check_groups(bench);
  cuda_compare::check_attention(bench);
  cuda_compare::check_products(bench);
  return std::move(bench.checks);
}

int run_cuda_check(const std::string& json_path, const CudaCheckParts& parts) {
  if (cuda_device_count() == 0) {
    fmt::print("no CUDA device: nothing was checked (needs a build with CUDA, a driver, and a visible device)\n");
    return static_cast<int>(ExitCode::missing_input);
  }
  const Device device{DeviceKind::cuda, 0};
  const DeviceProperties properties = device_properties(device);
  fmt::print("{}, sm_{}, {} multiprocessors\n", properties.name, properties.capability, properties.multiprocessors);
  CudaReport report(properties, json_path);
  if (parts.checks) {
    Workers workers;
    const auto add = [&](const CudaCheck& check) { report.add(check); };
    check_cuda_ops(device, workers, add, parts.quick);
    report.print_summary();
    report.save();
  }
  if (parts.timings) {
    time_cuda_ops(device, [&](const CudaTiming& timing) {
      report.add(timing);
      report.save();
    });
    report.print_summary();
  }
  return report.exit_code();
}

}  // namespace shoestring
