#include "core/model/families/family.h"

#include <gtest/gtest.h>

#include "core/recipe/names.h"
#include "tests/core/model/small_models.h"

namespace shoestring::testing {
namespace {

TEST(Family, ThereIsOneForEveryWordOfARecipe) {
  ASSERT_EQ(families().size(), enum_words<Architecture>().size());
  for (std::size_t i = 0; i < families().size(); ++i) {
    EXPECT_EQ(families()[i]->architecture, static_cast<Architecture>(i));
    EXPECT_EQ(&family_of(static_cast<Architecture>(i)), families()[i]);
  }
}

// The keys that a family says it has are those that its models are made of.
TEST(Family, KeysThatMeanSomethingShowInTheModel) {
  for (const Family* family : families()) {
    const ModelConfig config = small_config(family->architecture);
    EXPECT_EQ(config.mixtures() > 0, family->experts) << name(family->architecture);
    EXPECT_EQ(config.latent_attention, family->latent_attention) << name(family->architecture);
    EXPECT_EQ(config.mtp_layers > 0, family->further_tokens) << name(family->architecture);
    EXPECT_GT(config.qk_dim, 0);
    EXPECT_GE(config.qk_dim, config.rope_dim);
  }
}

TEST(Family, KeysOfAnotherFamilyAreRefused) {
  for (const Family* family : families()) {
    ModelSpec spec = small_spec(family->architecture);
    EXPECT_TRUE(check_model(spec, 0).empty()) << name(family->architecture);
    if (!family->experts) {
      spec.experts = 4;
      EXPECT_EQ(check_model(spec, 0).size(), 1U) << name(family->architecture);
    }
    spec = small_spec(family->architecture);
    if (!family->latent_attention) {
      spec.kv_lora_rank = 16;
      EXPECT_EQ(check_model(spec, 0).size(), 1U) << name(family->architecture);
    }
  }
}

}  // namespace
}  // namespace shoestring::testing
