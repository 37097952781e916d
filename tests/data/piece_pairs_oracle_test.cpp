// Our merges beside SentencePiece's own, over all that a Debian system has of C and C++ headers and over a fuzz; label
// `oracle`: the library takes minutes for them. tests/data/piece_pairs_test.cpp has a part of both.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/tokenizer.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

constexpr std::int64_t kSampleBytes = std::int64_t{1} << 20;
constexpr int kFuzzTexts = 200'000;

CorpusReader headers(std::int64_t limit_bytes) {
  return CorpusReader({.inputs = {"/usr/include"}, .extensions = {}, .limit_bytes = limit_bytes});
}

class PiecePairsOracle : public ::testing::Test {
 protected:
  PiecePairsOracle() {
    CorpusReader reader = headers(8 * kSampleBytes);
    trained_ = train_sentencepiece(4096, kSampleBytes, [&](std::string& text) {
      Document document;
      if (!reader.next(document)) return false;
      text = std::move(document.text);
      return true;
    });
    library_ = sentencepiece_reference(*trained_);
  }
  bool agree(const std::string& text) {
    ours_.clear();
    theirs_.clear();
    trained_->encode(text, ours_);
    library_->encode(text, theirs_);
    return ours_ == theirs_;
  }

  std::unique_ptr<Tokenizer> trained_, library_;
  std::vector<std::uint32_t> ours_, theirs_;
};

TEST_F(PiecePairsOracle, AllHeadersHaveTheLibrarysIds) {
  CorpusReader reader = headers(0);
  Document document;
  while (reader.next(document)) ASSERT_TRUE(agree(document.text)) << document.name;
  EXPECT_GT(reader.counts().bytes, 16 * kSampleBytes);
  RecordProperty("bytes", std::to_string(reader.counts().bytes));
}

// A code point of few or many bytes, a piece, a byte of any value, or one thing many times.
std::string anything(const Random& random, const Tokenizer& tokenizer) {
  std::uint64_t index = 0;
  std::string text;
  for (std::uint64_t parts = random.below(index++, 60); parts > 0; --parts) {
    std::string part;
    switch (random.below(index++, 6)) {
      case 0: part = static_cast<char>(random.below(index++, 256)); break;
      case 1: {
        const auto point = static_cast<std::uint32_t>(random.below(index++, 0x10FFFF));
        if (point < 0x800) {
          part = {static_cast<char>(0xC0 | point >> 6), static_cast<char>(0x80 | (point & 63))};
        } else if (point < 0x10000) {
          part = {static_cast<char>(0xE0 | point >> 12), static_cast<char>(0x80 | (point >> 6 & 63)),
                  static_cast<char>(0x80 | (point & 63))};
        } else {
          part = {static_cast<char>(0xF0 | point >> 18), static_cast<char>(0x80 | (point >> 12 & 63)),
                  static_cast<char>(0x80 | (point >> 6 & 63)), static_cast<char>(0x80 | (point & 63))};
        }
        break;
      }
      case 2: part = std::string(1 + random.below(index++, 3), ' '); break;
      default:
        part = tokenizer.decode(
            std::vector{static_cast<std::int32_t>(random.below(index++, tokenizer.vocabulary_size()))});
    }
    const bool many = random.below(index++, 40) == 0;
    for (std::uint64_t times = many ? random.below(index++, 60) : 1; times > 0; --times) text += part;
  }
  return text;
}

TEST_F(PiecePairsOracle, AnythingHasTheLibrarysIds) {
  for (std::uint32_t round = 0; round < kFuzzTexts; ++round) {
    const std::string text = anything(Random(23, Purpose::test, round), *trained_);
    ASSERT_TRUE(agree(text)) << round << ": " << ::testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace shoestring
