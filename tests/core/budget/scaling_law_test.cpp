#include "core/budget/scaling_law.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

// Table 3 of arXiv 2502.05172 also gives the fit of dense models in itself: 30.36 N^-0.1817 + 53.98 D^-0.1965 + 1.3637.
TEST(ScalingLaw, TheJointLawMeetsItsOwnDenseFit) {
  const ScalingLaw& law = scaling_law_named("joint_moe");
  for (const double active : {1e8, 1e9, 1e10}) {
    for (const double tokens : {1e10, 1e11, 1e12}) {
      const double dense = 30.3640 * std::pow(active, -0.1817) + 53.9838 * std::pow(tokens, -0.1965) + 1.3637;
      EXPECT_NEAR(law.loss(active, tokens, 1), dense, 5e-3) << active << " " << tokens;
      EXPECT_LT(law.loss(active, tokens, 8), dense);
    }
  }
}

// Chinchilla itself: 70B parameters, 1.4T tokens, near the optimum of its FLOPs (arXiv 2203.15556, table 3).
TEST(ScalingLaw, FallsWithParametersAndTokens) {
  for (const ScalingLaw& law : scaling_laws()) {
    EXPECT_LT(law.loss(2e9, 1e11, 1), law.loss(1e9, 1e11, 1)) << law.name;
    EXPECT_LT(law.loss(1e9, 2e11, 1), law.loss(1e9, 1e11, 1)) << law.name;
    EXPECT_FALSE(law.source.empty());
  }
  EXPECT_NEAR(scaling_law_named("chinchilla").loss(70e9, 1.4e12, 1), 1.937, 2e-3);
  EXPECT_NEAR(scaling_law_named("chinchilla_refit").loss(70e9, 1.4e12, 1), 1.974, 5e-3);
}

// DeepSeek 67B: 3.2e-4 and 4608 sequences of 4096, chosen by this formula (arXiv 2401.02954, table 2).
TEST(ScalingLaw, RateAndBatchAreDeepSeeks) {
  const double flops = 6 * 67e9 * 2e12;
  EXPECT_NEAR(best_learning_rate(flops) / 3.2e-4, 1, 0.01);
  EXPECT_NEAR(best_batch_tokens(flops) / (4608.0 * 4096), 1, 0.03);
}

TEST(ScalingLaw, AnUnknownOneIsAnsweredWithTheNames) {
  try {
    scaling_law_named("kaplan");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("joint_moe, chinchilla, chinchilla_refit"), std::string::npos);
  }
}

}  // namespace
}  // namespace shoestring
