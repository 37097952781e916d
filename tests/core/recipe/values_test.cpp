#include "core/recipe/values.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

std::vector<SourceSpec> sources(const std::string& text, std::string* mistake = nullptr) {
  std::vector<SourceSpec> value;
  const std::string found = values::parse_sources(text, value);
  if (mistake != nullptr) *mistake = found;
  return value;
}

// "web:2" is a folder of that name where there is one, else "web" with weight 2.
TEST(Sources, AnExistingNameIsAPath) {
  const testing::TemporaryFolder folder;
  const std::string web = (folder / "web").string();
  ASSERT_EQ(sources(web + ":2").size(), 1u);
  EXPECT_EQ(sources(web + ":2")[0].path, web);
  EXPECT_EQ(sources(web + ":2")[0].weight, 2);

  std::filesystem::create_directory(folder / "web:2");
  EXPECT_EQ(sources(web + ":2")[0].path, web + ":2");
  EXPECT_EQ(sources(web + ":2")[0].weight, 1);
  EXPECT_EQ(sources(web + ":2:3")[0].weight, 3);
  // As a recipe keeps it, it means the same wherever the folder is.
  const std::string kept = values::print_sources(sources(web + ":2"));
  EXPECT_EQ(kept, web + ":2:1");
  std::filesystem::remove(folder / "web:2");
  EXPECT_EQ(sources(kept)[0].path, web + ":2");
}

// No recipe can name it: that it is not "a" and "b" that are missing is said.
TEST(Sources, AnExistingNameWithACommaIsTold) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder / "a,b/train").string();
  std::string mistake;
  EXPECT_EQ(sources(path, &mistake).size(), 2u);
  EXPECT_EQ(mistake, "");
  std::filesystem::create_directories(path);
  const std::string told = "is several sources, since a comma separates them, but '" + path + "' exists: rename it";
  for (const std::string& text : {path, path + ":2", "web, " + path + " , code:3"}) {
    EXPECT_TRUE(sources(text, &mistake).empty());
    EXPECT_EQ(mistake, told) << text;
  }
}

TEST(List, AnExistingNameWithACommaIsTold) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder / "a,b").string();
  std::vector<std::string> value;
  EXPECT_EQ(values::parse_list(path, value), "");
  EXPECT_EQ(value.size(), 2u);
  std::filesystem::create_directory(path);
  EXPECT_EQ(values::parse_list("web, " + path, value),
            "is several items, since a comma separates them, but '" + path + "' exists: rename it");
}

TEST(Text, WhatNoRecipeCanHoldIsToldWithWhatToDo) {
  std::string value;
  for (const char* text : {"shards#2", "a\nb"}) {
    EXPECT_EQ(values::parse_text(text, value),
              "holds '#' or a control character, which no recipe can hold: leave it out, or rename what it names");
  }
}

TEST(Sources, TwoReadingsAreRefused) {
  const testing::TemporaryFolder folder;
  const std::string web = (folder / "web").string();
  std::filesystem::create_directory(folder / "web");
  std::filesystem::create_directory(folder / "web:2");
  std::string mistake;
  sources(web + ":2", &mistake);
  EXPECT_NE(mistake.find("both are there; write '" + web + ":2:1' for the first"), std::string::npos) << mistake;
  EXPECT_EQ(sources(web + ":2:1", &mistake).at(0).path, web + ":2");
  EXPECT_EQ(mistake, "");
}

}  // namespace
}  // namespace shoestring
