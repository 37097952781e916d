#include "kernels/base/variant.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

struct Args {
  int size = 0;
};
constexpr auto kRows = std::to_array<Variant<Args>>({
    {"tiled",
     [](const Args& a) { return a.size % 4 == 0 ? std::string() : std::string("size is not a multiple of 4"); },
     [](const Args&) {}},
    {"reference", never_refuses<Args>, [](const Args&) {}},
});

class VariantTest : public ::testing::Test {
 protected:
  ~VariantTest() override {
    allow_reference(true);
    pin_variant("op", "");
    observe_variants({});
  }
};

TEST_F(VariantTest, TheFirstRowThatDoesNotRefuse) {
  EXPECT_EQ(choose("op", kRows, {8}).name, "tiled");
  EXPECT_EQ(choose("op", kRows, {7}).name, "reference");
}

TEST_F(VariantTest, ARefusalListsEveryReason) {
  allow_reference(false);
  EXPECT_EQ(choose("op", kRows, {8}).name, "tiled");
  try {
    choose("op", kRows, {7});
    FAIL() << "the reference ran though the run forbids it";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "no variant of op fits these arguments:\n  tiled: size is not a multiple of 4\n"
                 "  reference: correct but slow; set kernels.allow_reference = yes to use it");
  }
}

TEST_F(VariantTest, APinHoldsUntilFreed) {
  pin_variant("op", "reference");
  EXPECT_EQ(choose("op", kRows, {8}).name, "reference");
  EXPECT_EQ(choose("other", kRows, {8}).name, "tiled");
  allow_reference(false);  // a pinned reference is not a silent one
  EXPECT_EQ(choose("op", kRows, {8}).name, "reference");
  pin_variant("op", "amx");
  EXPECT_THROW(choose("op", kRows, {8}), Error);
  pin_variant("op", "");
  EXPECT_EQ(choose("op", kRows, {8}).name, "tiled");
}

TEST_F(VariantTest, AnObserverHearsEachChoiceOnce) {
  std::vector<std::string> heard;
  const auto listen = [&](std::string_view op, std::string_view variant) {
    heard.push_back(std::string(op) + "=" + std::string(variant));
  };
  observe_variants(listen);
  for (int i = 0; i < 3; ++i) choose("op", kRows, {8});
  choose("op", kRows, {7});
  EXPECT_EQ(heard, (std::vector<std::string>{"op=tiled", "op=reference"}));
  heard.clear();
  observe_variants(listen);  // the next run of this process hears them again
  choose("op", kRows, {8});
  EXPECT_EQ(heard, std::vector<std::string>{"op=tiled"});
}

}  // namespace
}  // namespace shoestring
