#include "core/recipe/installed.h"

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

TEST(Installed, ABareNameIsLookedForInOrder) {
  const TemporaryFolder folder;
  const fs::path first = folder / "first";
  const fs::path second = folder / "second";
  write_text(first / "one.recipe", "");
  write_text(second / "one.recipe", "");
  write_text(second / "two.recipe", "");
  EXPECT_EQ(find_recipe("one", {first, second}), first / "one.recipe");
  EXPECT_EQ(find_recipe("one.recipe", {first, second}), first / "one.recipe");
  EXPECT_EQ(find_recipe("two", {first, second}), second / "two.recipe");
  EXPECT_EQ(find_recipe("three", {first, second}), "three");
}

// What the user names comes first, and a path is never looked for elsewhere.
TEST(Installed, WhatIsThereIsTaken) {
  const TemporaryFolder folder;
  write_text(folder / "one.recipe", "");
  write_text(folder / "own.recipe", "");
  EXPECT_EQ(find_recipe(folder / "own.recipe", {folder.path()}), folder / "own.recipe");
  EXPECT_EQ(find_recipe("absent/one.recipe", {folder.path()}), "absent/one.recipe");
  EXPECT_EQ(find_recipe("./one.recipe", {folder.path()}), "./one.recipe");
}

}  // namespace
}  // namespace shoestring
