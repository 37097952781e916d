// The comparison of CUDA ops with the CPU, tried with the CPU on both sides, and on a device where there is one.
#include "tools/bench/cuda_check_bench.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"
#include "tools/bench/cuda_compare.h"

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
  expect_passed(bench.checks);
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
