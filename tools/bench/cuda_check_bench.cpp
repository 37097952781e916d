#include "tools/bench/cuda_check_bench.h"

#include <cstdio>
#include <exception>

#include "kernels/base/check.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + "\"";
}

std::string to_json(const DeviceProperties& device, const std::vector<CudaCheck>& checks,
                    const std::vector<CudaTiming>& timings) {
  std::string text = fmt::format(
      "{{\n  \"schema\": 1,\n  \"device\": {},\n  \"capability\": {},\n  \"multiprocessors\": {},\n"
      "  \"clock_hz\": {:.0f},\n  \"memory_bytes_per_second\": {:.0f},\n  \"checks\": [",
      quoted(device.name), device.capability, device.multiprocessors, device.clock_hz, device.memory_bytes_per_second);
  for (std::size_t i = 0; i < checks.size(); ++i) {
    text += fmt::format("{}\n    {{\"name\": {}, \"passed\": {}, \"detail\": {}}}", i == 0 ? "" : ",",
                        quoted(checks[i].name), checks[i].passed, quoted(checks[i].detail));
  }
  text += "\n  ],\n  \"timings\": [";
  for (std::size_t i = 0; i < timings.size(); ++i) {
    const CudaTiming& t = timings[i];
    text += fmt::format(
        "{}\n    {{\"name\": {}, \"seconds\": {:.9f}, \"floor_seconds\": {:.9f}, "
        "\"bytes_per_second\": {:.0f}, \"flops_per_second\": {:.0f}}}",
        i == 0 ? "" : ",", quoted(t.name), t.seconds, t.floor_seconds, t.bytes_per_second, t.flops_per_second);
  }
  return text + "\n  ]\n}\n";
}

void write(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  const bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file != nullptr && std::fclose(file) == 0;
  if (!written || !closed) fail(ExitCode::io, "cannot write {}", path);
}

/// An op that no row of its table takes here is a failed check, not the end of the others.
void part(cuda_compare::Bench& bench, const char* name, void (*body)(cuda_compare::Bench&)) {
  try {
    body(bench);
  } catch (const std::exception& error) {
    bench.verdict(name, false, error.what());
  }
}

}  // namespace

std::vector<CudaCheck> check_cuda_ops(Device device, Workers& workers) {
  cuda_compare::Bench bench{Stream(workers), Stream(device)};
  part(bench, "quantise, dequantise and RMSNorm", cuda_compare::check_moves);
  part(bench, "GEMM", cuda_compare::check_products);
  return std::move(bench.checks);
}

int run_cuda_check(const std::string& json_path) {
  if (cuda_device_count() == 0) {
    fmt::print("no CUDA device: nothing was checked (needs a build with CUDA, a driver, and a visible device)\n");
    return static_cast<int>(ExitCode::missing_input);
  }
  const Device device{DeviceKind::cuda, 0};
  const DeviceProperties properties = device_properties(device);
  fmt::print("{}, sm_{}, {} multiprocessors\n", properties.name, properties.capability, properties.multiprocessors);
  Workers workers;
  const std::vector<CudaCheck> checks = check_cuda_ops(device, workers);
  std::size_t failed = 0;
  for (const CudaCheck& check : checks) {
    if (check.passed) continue;
    ++failed;
    fmt::print("FAILED {}: {}\n", check.name, check.detail);
  }
  fmt::print("{} of {} checks passed\n", checks.size() - failed, checks.size());
  const std::vector<CudaTiming> timings = time_cuda_ops(device);
  for (const CudaTiming& t : timings) {
    fmt::print("{:<56} {:>9.1f} us  {:>5.1f}% of the floor's speed  {:>7.1f} GB/s  {:>7.1f} TFLOP/s\n", t.name,
               t.seconds * 1e6, 100 * t.floor_seconds / t.seconds, t.bytes_per_second / 1e9, t.flops_per_second / 1e12);
  }
  if (!json_path.empty()) write(json_path, to_json(properties, checks, timings));
  return static_cast<int>(failed == 0 ? ExitCode::done : ExitCode::bug);
}

}  // namespace shoestring
