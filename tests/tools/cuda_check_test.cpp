// The comparison of CUDA ops with the CPU, tried with the CPU on both sides, and on a device where there is one.
#include "tools/bench/cuda_check_bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tests/support/temporary_folder.h"
#include "tools/bench/cuda_clock.h"
#include "tools/bench/cuda_compare.h"
#include "tools/bench/cuda_report.h"

namespace shoestring {
namespace {

void expect_passed(const std::vector<CudaCheck>& checks) {
  EXPECT_GT(checks.size(), 500u);
  for (const CudaCheck& check : checks) EXPECT_TRUE(check.passed) << check.name << ": " << check.detail;
}

TEST(CudaCheck, TheCpuAgreesWithItselfAndDamageIsSeen) {
  Workers one(1);
  Workers two(2);
  cuda_compare::Bench bench{Stream(one), Stream(two)};
  cuda_compare::check_moves(bench);
  cuda_compare::check_products(bench);
  cuda_compare::check_groups(bench);
  expect_passed(bench.checks);
}

/// What the bound of an element lets pass beside large terms: zeros, other numbers.
TEST(CudaCheck, AWholeResultIsSeenToBeWrong) {
  const Tensor right = cuda_compare::numbers(DType::bf16, {8, 2, 16}, 1);
  const Tensor zeros(DType::bf16, {8, 2, 16});
  EXPECT_EQ(cuda_compare::norm_error(right, right), 0);
  EXPECT_EQ(cuda_compare::norm_error(zeros, right), 1);
  EXPECT_EQ(cuda_compare::norm_error(cuda_compare::poisoned(DType::bf16, {8, 2, 16}), right), HUGE_VAL);
  EXPECT_GT(cuda_compare::norm_error(cuda_compare::numbers(DType::bf16, {8, 2, 16}, 2), right), 0.5);
}

/// Nothing that was found is lost to what throws behind it.
TEST(CudaCheck, WhatThrowsFailsAlone) {
  Workers one(1);
  Workers two(1);
  std::vector<std::string> told;
  cuda_compare::Bench bench{Stream(one), Stream(two), [&](const CudaCheck& check) { told.push_back(check.name); }};
  bench.part("all", [&] {
    bench.part("first", [&] { bench.verdict("first", true, ""); });
    bench.part("second", [] { fail(ExitCode::bug, "no row takes {}", "this"); });
    bench.part("third", [&] { bench.verdict("third", true, ""); });
  });
  EXPECT_EQ(told, (std::vector<std::string>{"first", "second", "third"}));
  ASSERT_EQ(bench.checks.size(), 3u);
  EXPECT_TRUE(bench.checks[0].passed);
  EXPECT_FALSE(bench.checks[1].passed);
  EXPECT_EQ(bench.checks[1].detail, "no row takes this");
  EXPECT_TRUE(bench.checks[2].passed);
}

TEST(CudaCheck, TimingsThatThrowAreKeptWithTheirReason) {
  Workers one(1);
  Stream stream(one);
  std::vector<std::string> told;
  cuda_compare::Clock clock(stream,
                            {.name = "cpu", .multiprocessors = 1, .clock_hz = 1e9, .memory_bytes_per_second = 1e9},
                            1 << 20, [&](const CudaTiming& timing) { told.push_back(timing.name); });
  volatile double sum = 0;
  const auto add = [&] {
    for (int i = 0; i < 1000; ++i) sum = sum + i;
  };
  clock.part("group", [&] {
    clock.time("first", 1e3, 2e3, 4, add);
    clock.time("second", 1, 0, 0, [] { fail(ExitCode::io, "out of memory"); });
    clock.time("third", 1, 0, 0, add);
    fail(ExitCode::io, "no room for the fourth");
  });
  EXPECT_EQ(told, (std::vector<std::string>{"first", "second", "third", "group"}));
  ASSERT_EQ(clock.timings.size(), 4u);
  EXPECT_GT(clock.timings[0].seconds, 0);
  EXPECT_DOUBLE_EQ(clock.timings[0].floor_seconds, 1e-6);
  EXPECT_DOUBLE_EQ(clock.timings[0].flops_per_second * clock.timings[0].seconds, 2e3);
  EXPECT_EQ(clock.timings[1].error, "out of memory");
  EXPECT_EQ(clock.timings[1].seconds, 0);
  EXPECT_EQ(clock.timings[2].error, "");
  EXPECT_EQ(clock.timings[3].error, "no room for the fourth");
}

TEST(CudaReport, IsWrittenAsItGrowsAndCountsFailures) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "report.json";
  CudaReport report({.name = "a \"device\"", .capability = 90}, path);
  report.add(CudaCheck{"one", true, ""});
  report.save();
  EXPECT_EQ(report.exit_code(), 0);
  const std::string first = testing::read_text(path);
  EXPECT_NE(first.find("\"device\": \"a \\\"device\\\"\""), std::string::npos) << first;
  EXPECT_NE(first.find("{\"name\": \"one\", \"passed\": true, \"detail\": \"\"}"), std::string::npos) << first;
  report.add(CudaTiming{.name = "fast", .seconds = 0.5, .floor_seconds = 0.25});
  EXPECT_EQ(report.exit_code(), 0);
  report.add(CudaTiming{.name = "slow", .error = "out\nof memory"});
  report.save();
  EXPECT_EQ(report.exit_code(), static_cast<int>(ExitCode::bug));
  const std::string second = testing::read_text(path);
  EXPECT_NE(second.find("{\"name\": \"fast\", \"seconds\": 0.500000000,"), std::string::npos) << second;
  EXPECT_NE(second.find("{\"name\": \"slow\", \"error\": \"out of memory\"}"), std::string::npos) << second;
}

TEST(CudaReport, AFailedCheckOrAFileThatCannotBeWrittenIsAnExitCode) {
  CudaReport failed({}, "");
  failed.add(CudaCheck{"one", false, "wrong"});
  failed.save();
  EXPECT_EQ(failed.exit_code(), static_cast<int>(ExitCode::bug));
  const testing::TemporaryFolder folder;
  CudaReport unwritten({}, folder.path() / "absent" / "report.json");
  unwritten.add(CudaCheck{"one", true, ""});
  unwritten.save();
  EXPECT_EQ(unwritten.exit_code(), static_cast<int>(ExitCode::io));
}

TEST(CudaCheck, OnADevice) {
  if (cuda_device_count() == 0) GTEST_SKIP() << "needs a CUDA device";
  Workers workers;
  expect_passed(check_cuda_ops({DeviceKind::cuda, 0}, workers));
}

TEST(CudaCheck, SaysWhenThereIsNoDevice) {
  if (cuda_device_count() != 0) GTEST_SKIP() << "needs a machine without a CUDA device";
  EXPECT_EQ(run_cuda_check(""), static_cast<int>(ExitCode::missing_input));
}

}  // namespace
}  // namespace shoestring
