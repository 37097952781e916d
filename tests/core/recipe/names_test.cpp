#include "core/recipe/names.h"

#include <gtest/gtest.h>

namespace shoestring {
namespace {

TEST(Names, EditDistanceCountsSwapsOnce) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("pretrian", "pretrain"), 1u);
}

TEST(Names, NearestIsMeantOrNothing) {
  const std::string_view words[] = {"gpu_hours", "usd", "kwh", "job_hours", "global_batch"};
  EXPECT_EQ(nearest_word("gpu_hour", words), "gpu_hours");
  EXPECT_EQ(nearest_word("GPU-Hours", words), "gpu_hours");
  EXPECT_EQ(nearest_word("global_batch_size", words), "global_batch");
  EXPECT_EQ(nearest_word("temperature", words), "");
  EXPECT_EQ(nearest_word("", words), "");
  EXPECT_EQ(nearest_word(std::string(100000, 'a'), words), "");
}

TEST(Names, EveryEnumeratorHasItsWord) {
  EXPECT_EQ(word(Architecture::deepseek_v3), "deepseek_v3");
  EXPECT_EQ(word(PrecisionPolicy::mxfp8), "mxfp8");
  EXPECT_EQ(word(ScheduleName::dualpipev), "dualpipev");
  EXPECT_EQ(word(LearningRateKind::constant), "constant");
  EXPECT_EQ(word(Horizon::steps), "steps");
  EXPECT_EQ(word(OnRepeat::go_back), "go_back");
  EXPECT_EQ(word(AllowReference::no), "no");
  EXPECT_EQ(word(RouterKindSpec::sqrt_softplus), "sqrt_softplus");
}

}  // namespace
}  // namespace shoestring
