#include "data/hold_out.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

HoldOut split(double share, const std::vector<std::string>& texts, std::vector<DocumentVerdict> verdicts = {}) {
  const testing::TemporaryFolder folder;
  HoldOut hold_out(share, 17);
  DocumentFates fates(folder / "fates");
  verdicts.resize(texts.size(), DocumentVerdict::keep);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const bool drawn = hold_out.draws(texts[i]);
    fates.append({static_cast<std::uint32_t>(texts[i].size()), verdicts[i], static_cast<std::uint8_t>(drawn)});
  }
  OneRank alone;
  hold_out.finish(fates, alone);
  return hold_out;
}

TEST(HoldOut, OfManyDocumentsWholeOnesByTheirContent) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back("document " + std::to_string(i));
  const HoldOut hold_out = split(0.2, texts);
  EXPECT_FALSE(hold_out.takes_the_end());
  std::size_t held = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::size_t trained = hold_out.trained_bytes(i, texts[i]);
    EXPECT_EQ(trained, hold_out.draws(texts[i]) ? 0 : texts[i].size());
    held += trained == 0 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(held), 40, 20);
}

TEST(HoldOut, OfOneDocumentTheLastLines) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(1000 + i) + "\n";  // 10 bytes each
  const HoldOut hold_out = split(0.01, {text});
  EXPECT_TRUE(hold_out.takes_the_end());
  EXPECT_EQ(hold_out.trained_bytes(0, text), text.size() - 100);
  // A border within a line takes the whole line.
  EXPECT_EQ(split(0.0105, {text}).trained_bytes(0, text), text.size() - 110);
}

TEST(HoldOut, TextWithoutLinesIsCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE6\x97\xA5";
  const HoldOut hold_out = split(0.1, {text});
  EXPECT_EQ(hold_out.trained_bytes(0, text), 270u);
  EXPECT_EQ(split(0.098, {text}).trained_bytes(0, text), 270u) << "270.6 is within a character";
}

TEST(HoldOut, OfFewDocumentsTheLastAndNotTheDropped) {
  const std::string a(100, 'a'), b = "b\n" + std::string(97, 'b') + "\n", c(20, 'c');
  const HoldOut hold_out =
      split(1e-3, {a, b, c, b},
            {DocumentVerdict::keep, DocumentVerdict::keep, DocumentVerdict::keep, DocumentVerdict::exact_duplicate});
  ASSERT_TRUE(hold_out.takes_the_end());
  EXPECT_EQ(hold_out.trained_bytes(0, a), 100u);
  EXPECT_EQ(hold_out.trained_bytes(1, b), 100u);
  EXPECT_EQ(hold_out.trained_bytes(2, c), 19u) << "a byte at least";
  EXPECT_FALSE(split(0, {a}).takes_the_end());
  EXPECT_EQ(split(0, {a}).trained_bytes(0, a), 100u);
}

// A draw that leaves nothing to train on is no better than one that holds out nothing.
TEST(HoldOut, ASingleDrawnDocumentIsNotHeldOutWhole) {
  std::string drawn;
  for (int i = 0; drawn.empty(); ++i) {
    const std::string text = "text " + std::to_string(i) + " of a single document";
    if (HoldOut(0.05, 17).draws(text)) drawn = text;
  }
  const HoldOut hold_out = split(0.05, {drawn});
  EXPECT_TRUE(hold_out.takes_the_end());
  EXPECT_GT(hold_out.trained_bytes(0, drawn), drawn.size() / 2);
}

}  // namespace
}  // namespace shoestring
