#include "data/piece_pairs.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/corpus.h"
#include "data/tokenizer.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

std::vector<std::uint32_t> encoded(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

// C headers, some words of other scripts, runs of one letter and of blanks.
std::string training_text() {
  CorpusReader reader({.inputs = {"/usr/include/c++"}, .extensions = {}, .limit_bytes = 400'000});
  std::string text;
  Document document;
  while (reader.next(document)) text += document.text;
  for (int i = 0; i < 300; ++i) {
    text += "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E na\xC3\xAFve \xD0\xB9\xD0\xBA\xD0\xBB aaaaaaaa      " +
            std::to_string(i * i) + "\n";
  }
  return text;
}

class PiecePairsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    trained_ = train_sentencepiece(1500, 500'000, [text = training_text()](std::string& next) mutable {
                 next = std::exchange(text, "");
                 return !next.empty();
               }).release();
    library_ = sentencepiece_reference(*trained_).release();
  }
  static void TearDownTestSuite() {
    delete trained_;
    delete library_;
  }
  static const Tokenizer* trained_;
  static const Tokenizer* library_;
};
const Tokenizer* PiecePairsTest::trained_ = nullptr;
const Tokenizer* PiecePairsTest::library_ = nullptr;

TEST_F(PiecePairsTest, FindTheLibrarysIdsInText) {
  CorpusReader reader({.inputs = {"/usr/include"}, .extensions = {}, .limit_bytes = 1'500'000});
  Document document;
  std::size_t bytes = 0;
  while (reader.next(document)) {
    ASSERT_EQ(encoded(*trained_, document.text), encoded(*library_, document.text)) << document.name;
    bytes += document.text.size();
  }
  EXPECT_GT(bytes, 500'000u);
}

// Ties, characters that are pieces and that are none, parts of them, blanks in every place, bytes that are no text.
TEST_F(PiecePairsTest, FindTheLibrarysIdsInAnything) {
  const std::vector<std::string> parts = {"a",
                                          "aa",
                                          " ",
                                          "  ",
                                          "\n",
                                          "\t",
                                          "int",
                                          "_t",
                                          "e",
                                          "9",
                                          "\xE6\x97\xA5",
                                          "\xE6\x97\xA6",
                                          "\xE6\x97",
                                          "\xC3\xA9",
                                          "\xC3\xAF",
                                          "\xF0\x9F\x98\x80",
                                          "\xFF",
                                          std::string("\0", 1),
                                          "\xE2\x96\x81",
                                          "(",
                                          ");",
                                          "std::",
                                          "return"};
  const Random random(7, Purpose::test);
  std::uint64_t index = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (std::uint64_t length = random.below(index++, 40); length > 0; --length) {
      text += parts[random.below(index++, parts.size())];
    }
    ASSERT_EQ(encoded(*trained_, text), encoded(*library_, text)) << ::testing::PrintToString(text);
  }
  for (const std::string& part : parts) {
    std::string longer;
    for (int i = 0; i < 700; ++i) longer += part;
    ASSERT_EQ(encoded(*trained_, longer), encoded(*library_, longer)) << ::testing::PrintToString(part);
  }
}

// Text is cut where no piece reaches across, before a blank as anywhere: where one does, it is not.
TEST(PiecePairs, APieceThatReachesAcrossABlankIsFound) {
  const std::string space = "\xE2\x96\x81";
  BpePieces bpe;
  float score = 0;
  for (const std::string& text :
       {"a" + space, "b" + space + "a" + space, std::string("a"), std::string("b"), space, "b" + space}) {
    bpe.pieces.push_back({text, score--, BpePieces::Kind::text});
  }
  std::array<int, 256> bytes{};
  for (std::size_t byte = 0; byte < bytes.size(); ++byte) bytes[byte] = static_cast<int>(100 + byte);
  const std::unique_ptr<PiecePairs> pairs = PiecePairs::make(bpe, bytes);
  std::vector<std::uint32_t> ids;
  pairs->encode("b a ba ", ids);
  EXPECT_EQ(ids, (std::vector<std::uint32_t>{1, 3, 0})) << "of b+_ and a+_ the last that was learnt is joined last";
}

}  // namespace
}  // namespace shoestring
