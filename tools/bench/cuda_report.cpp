#include "tools/bench/cuda_report.h"

#include <cstdio>
#include <exception>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/output_file.h"

namespace shoestring {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
  }
  return out + "\"";
}

std::string to_json(const CudaTiming& t) {
  if (!t.error.empty()) return fmt::format("{{\"name\": {}, \"error\": {}}}", quoted(t.name), quoted(t.error));
  return fmt::format(
      "{{\"name\": {}, \"seconds\": {:.9f}, \"floor_seconds\": {:.9f}, \"bytes_per_second\": {:.0f}, "
      "\"flops_per_second\": {:.0f}}}",
      quoted(t.name), t.seconds, t.floor_seconds, t.bytes_per_second, t.flops_per_second);
}

}  // namespace

CudaReport::CudaReport(DeviceProperties device, std::string json_path)
    : device_(std::move(device)), json_path_(std::move(json_path)) {}

void CudaReport::add(const CudaCheck& check) {
  checks_.push_back(check);
  if (check.passed) return;
  ++failed_checks_;
  fmt::print("FAILED {}: {}\n", check.name, check.detail);
  std::fflush(stdout);
}

void CudaReport::add(const CudaTiming& t) {
  timings_.push_back(t);
  if (t.error.empty()) {
    fmt::print("{:<56} {:>9.1f} us  {:>5.1f}% of the floor's speed  {:>7.1f} GB/s  {:>7.1f} TFLOP/s\n", t.name,
               t.seconds * 1e6, 100 * t.floor_seconds / t.seconds, t.bytes_per_second / 1e9, t.flops_per_second / 1e12);
  } else {
    ++missing_timings_;
    fmt::print("NOT TIMED {}: {}\n", t.name, t.error);
  }
  std::fflush(stdout);
}

void CudaReport::print_summary() const {
  fmt::print("{} of {} checks passed\n", checks_.size() - failed_checks_, checks_.size());
  if (missing_timings_ != 0) fmt::print("{} of {} timings are missing\n", missing_timings_, timings_.size());
  std::fflush(stdout);
}

void CudaReport::save() {
  if (json_path_.empty()) return;
  try {
    write_output(json_path_, to_json());
    saved_ = true;
  } catch (const std::exception& error) {
    saved_ = false;
    std::fprintf(stderr, "%s\n", error.what());
  }
}

std::string CudaReport::to_json() const {
  std::string text = fmt::format(
      "{{\n  \"schema\": 1,\n  \"device\": {},\n  \"capability\": {},\n  \"multiprocessors\": {},\n"
      "  \"clock_hz\": {:.0f},\n  \"memory_bytes_per_second\": {:.0f},\n  \"checks\": [",
      quoted(device_.name), device_.capability, device_.multiprocessors, device_.clock_hz,
      device_.memory_bytes_per_second);
  for (std::size_t i = 0; i < checks_.size(); ++i) {
    text += fmt::format("{}\n    {{\"name\": {}, \"passed\": {}, \"detail\": {}}}", i == 0 ? "" : ",",
                        quoted(checks_[i].name), checks_[i].passed, quoted(checks_[i].detail));
  }
  text += "\n  ],\n  \"timings\": [";
  for (std::size_t i = 0; i < timings_.size(); ++i) {
    text += fmt::format("{}\n    {}", i == 0 ? "" : ",", shoestring::to_json(timings_[i]));
  }
  return text + "\n  ]\n}\n";
}

int CudaReport::exit_code() const {
  if (failed_checks_ != 0 || missing_timings_ != 0) return static_cast<int>(ExitCode::bug);
  return static_cast<int>(saved_ ? ExitCode::done : ExitCode::io);
}

}  // namespace shoestring
