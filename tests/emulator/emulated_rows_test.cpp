// Every CUDA row through the emulator: the checks of shoestring_gpu_check, which compare with the CPU's rows, under
// each order of threads and blocks and each fill of shared memory; that each instance of each kernel has run by then;
// and that none of their barriers can be missed.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/base/workers.h"
#include "tests/emulator/cudnn.h"
#include "tests/emulator/grid.h"
#include "tests/emulator/sanitizers.h"
#include "tests/emulator/symbols.h"
#include "tools/bench/cuda_compare.h"

namespace shoestring {
namespace {

using emulator::Order;

/// Whether to run a part of the checks, after those that failed.
using Wanted = std::function<bool(const std::string& part, const std::vector<std::string>& failed)>;

/// Runs the checks; what failed. `quick` leaves out shapes that run no other code.
std::vector<std::string> failures(const emulator::Settings& settings, bool quick, int* ran = nullptr,
                                  const Wanted& wanted = {}) {
  emulator::settings() = settings;
  emulator_cudnn::stands_in() = true;
  Workers workers(1);  // this thread: ThreadSanitizer does not see how others are waited for
  std::vector<std::string> failed;
  int count = 0;
  const auto observe = [&](const CudaCheck& check) {
    ++count;
    if (!check.passed) failed.push_back(check.name + ": " + check.detail);
  };
  cuda_compare::Bench bench{Stream(workers), Stream(Device{DeviceKind::cuda, 0}), observe, {}};
  bench.quick = quick;
  if (wanted) bench.wanted = [&](const std::string& part) { return wanted(part, failed); };
  cuda_compare::check_moves(bench);
  cuda_compare::check_ops(bench);
  cuda_compare::check_elements(bench);
  cuda_compare::check_experts(bench);
  cuda_compare::check_blocks(bench);
  cuda_compare::check_fused(bench);
  cuda_compare::check_groups(bench);
  cuda_compare::check_attention(bench);
  emulator::settings() = {};
  emulator_cudnn::stands_in() = false;
  if (ran != nullptr) *ran = count;
  return failed;
}

void expect_none(const std::vector<std::string>& failed) {
  for (std::size_t i = 0; i < std::min<std::size_t>(failed.size(), 10); ++i) ADD_FAILURE() << failed[i];
  EXPECT_EQ(failed.size(), 0u);
}

TEST(EmulatedRows, AgreeWithTheCpuAndEveryKernelRan) {
  if (emulator::kWatchesRaces) GTEST_SKIP() << "the slow test of barriers does it under ThreadSanitizer";
  emulator::clear_history();
  int ran = 0;
  expect_none(failures({.order = Order::scrambled, .fill = 0xFF}, true, &ran));
  EXPECT_GT(ran, 200);
  const std::vector<const void*> seen = emulator::kernels_seen();
  for (const emulator::Symbol& kernel : emulator::kernels()) {
    if (kernel.name.find("::broken::") != std::string::npos) continue;
    EXPECT_TRUE(std::find(seen.begin(), seen.end(), kernel.address) != seen.end()) << "nobody ran " << kernel.name;
  }
}

TEST(EmulatedRowsSlow, AgreeInTheOtherOrdersAndFills) {
  expect_none(failures({.order = Order::up, .fill = 0x00}, false));
  expect_none(failures({.order = Order::down, .fill = 0x3F}, false));
}

// A barrier that no check misses would be one too many, or one that nothing tests. Those checks are asked that come to
// it, one after the other until one misses it.
TEST(EmulatedRowsSlow, MissEachBarrier) {
  if (!emulator::kWatchesRaces) GTEST_SKIP() << "only the binary under ThreadSanitizer sees races";
  std::map<std::string, std::set<std::string>> parts_of;  // of each barrier
  std::string part;
  const auto look = [&] {
    for (const std::string& barrier : emulator::barriers_seen()) parts_of[barrier].insert(part);
    EXPECT_EQ(emulator::races_seen(), 0) << part;
    emulator::clear_history();
  };
  emulator::clear_history();
  expect_none(failures({.order = Order::scrambled}, true, nullptr, [&](const std::string& next, const auto&) {
    look();
    part = next;
    return true;
  }));
  look();
  EXPECT_GE(parts_of.size(), 8u);
  for (const auto& [barrier, parts] : parts_of) {
    emulator::clear_history();
    bool missed = false;
    const emulator::Settings without{.order = Order::scrambled, .skipped_barrier = barrier, .stop_at_race = true};
    const std::vector<std::string> failed =
        failures(without, true, nullptr, [&](const std::string& next, const auto& so_far) {
          missed = missed || !so_far.empty() || emulator::races_seen() > 0;
          return !missed && parts.contains(next);
        });
    EXPECT_TRUE(missed || !failed.empty() || emulator::races_seen() > 0)
        << "without the barrier at " << barrier << " all is well in " << parts.size() << " parts that come to it";
  }
}

TEST(EmulatedRows, SharedMemoryIsFoundByName) {
  const auto& variables = emulator::shared_variables();
  const auto turned = std::find_if(variables.begin(), variables.end(), [](const emulator::Symbol& variable) {
    return variable.name.find("Plain<float>, shoestring::E4M3>") != std::string::npos &&
           variable.name.find("::turned") != std::string::npos;
  });
  ASSERT_NE(turned, variables.end());
  EXPECT_EQ(turned->bytes, 128u * 132u);
}

}  // namespace
}  // namespace shoestring
