#include "kernels/base/cpu.h"

#include <gtest/gtest.h>

#include <sys/wait.h>

#include <cstdlib>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

TEST(Cpu, FeaturesBuildOnEachOther) {
  const CpuFeatures& features = cpu_features();
  EXPECT_EQ(&features, &cpu_features());
  if (features.avx512) {
    EXPECT_TRUE(features.avx2);
  }
  if (features.avx512_vbmi) {
    EXPECT_TRUE(features.avx512);
  }
  if (features.amx_bf16) {
    EXPECT_TRUE(features.avx512_vbmi);
  }
  EXPECT_EQ(features.to_string().rfind(features.avx2 ? "avx2" : "portable", 0), 0u);
}

// The answer is asked once per process, so each level needs a process of its own.
TEST(CpuDeathTest, TheEnvironmentLowersWhatIsReported) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto level = [](const char* text) {
    setenv("SHOESTRING_MAX_ISA", text, 1);
    try {
      const CpuFeatures& features = cpu_features();
      std::exit(features.amx_bf16 ? 4 : features.avx512 ? 3 : features.avx2 ? 2 : 1);
    } catch (const Error& error) {
      std::exit(static_cast<int>(error.code()));
    }
  };
  const auto at_most = [](int most) {  // what the machine has is not known here: asking would answer for the child
    return [most](int status) { return WIFEXITED(status) && WEXITSTATUS(status) >= 1 && WEXITSTATUS(status) <= most; };
  };
  EXPECT_EXIT(level("portable"), at_most(1), "");
  EXPECT_EXIT(level("avx2"), at_most(2), "");
  EXPECT_EXIT(level("avx512"), at_most(3), "");
  EXPECT_EXIT(level("amx"), at_most(4), "");
  EXPECT_EXIT(level("sse9"), ::testing::ExitedWithCode(64), "");
}

}  // namespace
}  // namespace shoestring
