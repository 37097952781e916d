#include "parallel/rank_sign.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

const RankSign kSign = {.rank = 3,
                        .host = "node7",
                        .process = 4711,
                        .turn = 12,
                        .turn_seconds = 0.5,
                        .stalled_seconds = 2.5,
                        .limits = {.progress_seconds = 100, .sign_seconds = 10, .alone = true},
                        .waits_for = 1,
                        .doing = "step 5, F0.3, receiving \"x\" from rank 1"};
const Verdict kVerdict = {.code = ExitCode::hang, .culprit = 3, .author = 0, .text = "rank 3 has stopped"};

TEST(RankSign, TextsComeBack) {
  EXPECT_EQ(parse_sign(to_text(kSign)), kSign);
  EXPECT_EQ(parse_verdict(to_text(kVerdict)), kVerdict);
  EXPECT_EQ(name(kSign), "rank 3 (host node7, process 4711)");
}

TEST(RankSign, WhatIsNoneIsNone) {
  const std::string sign = to_text(kSign);
  for (const std::string& text : {std::string(), std::string("{}"), std::string("[1]"), sign.substr(0, 40),
                                  std::string(100000, '['), std::string(R"({"rank":-1})")}) {
    EXPECT_FALSE(parse_sign(text)) << text.substr(0, 60);
    EXPECT_FALSE(parse_verdict(text)) << text.substr(0, 60);
  }
  std::string code = to_text(kVerdict);
  code.replace(code.find("80"), 2, "0");  // a verdict that says all is well
  EXPECT_FALSE(parse_verdict(code)) << code;
}

TEST(SignFolder, AShorterSignLeavesNoTailOfALongerOne) {
  const testing::TemporaryFolder place;
  const SignFolder folder(place.path() / "ranks");
  folder.clear();
  RankSign sign = kSign;
  sign.doing = std::string(3000, 'x');
  folder.write(sign);
  EXPECT_EQ(folder.read(3), sign);
  folder.write(kSign);
  EXPECT_FALSE(folder.read(2));
  EXPECT_EQ(folder.read(3), kSign);
}

TEST(SignFolder, TheFirstVerdictStands) {
  const testing::TemporaryFolder place;
  const SignFolder folder(place.path() / "ranks");
  folder.clear();
  EXPECT_FALSE(folder.verdict());
  EXPECT_TRUE(folder.write(kVerdict));
  Verdict second = kVerdict;
  second.author = 1;
  EXPECT_FALSE(folder.write(second));
  EXPECT_EQ(folder.verdict(), kVerdict);
  folder.clear();
  EXPECT_FALSE(folder.verdict());
}

TEST(SignFolder, LinksAreNotWrittenThrough) {
  const testing::TemporaryFolder place;
  const SignFolder folder(place.path() / "ranks");
  folder.clear();
  testing::write_text(place.path() / "precious", "kept");
  fs::create_symlink(place.path() / "precious", place.path() / "ranks/3.json");
  folder.write(kSign);
  EXPECT_EQ(testing::read_text(place.path() / "precious"), "kept");
}

}  // namespace
}  // namespace shoestring
