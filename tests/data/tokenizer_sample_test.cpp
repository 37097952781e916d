#include "data/tokenizer_sample.h"

#include <gtest/gtest.h>

#include <mutex>
#include <numeric>

#include "tests/data/build_threads.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

std::string document(int number) {
  std::string text;
  for (int line = 0; line < 20; ++line) text += std::to_string(number * 7919 + line) + " is a line of it\n";
  return text;
}

std::size_t all_of(std::size_t, bool, std::size_t, std::string_view text) { return text.size(); }

// The sample of `ranks` ranks with an even part of `documents` each.
std::vector<std::string> sample_of(int ranks, int documents, std::int64_t bytes,
                                   const std::function<bool(int)>& is_usable) {
  const testing::TemporaryFolder folder;
  std::vector<std::string> sample;
  testing::on_ranks(ranks, [&](BuildRanks& self) {
    TokenizerSample own(bytes, 17);
    const int first = documents * self.rank() / ranks;
    const int end = documents * (self.rank() + 1) / ranks;
    for (int i = first; i < end; ++i) own.add(static_cast<std::size_t>(i - first), i % 2 == 1, document(i % 300));
    std::vector<std::string> taken = own.take(
        [&](std::size_t number, bool drawn, std::size_t begin, std::string_view text) {
          EXPECT_EQ(drawn, (first + static_cast<int>(number)) % 2 == 1);
          EXPECT_EQ(begin, 0u);
          return is_usable(first + static_cast<int>(number)) ? text.size() : 0;
        },
        folder.path(), self);
    if (self.leads()) sample = std::move(taken);
  });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  return sample;
}

TEST(TokenizerSample, IsTheSameWhoeverReadsWhichPart) {
  const auto usable = [](int i) { return i % 3 != 0; };
  const std::vector<std::string> one = sample_of(1, 400, 20'000, usable);
  const std::size_t bytes = std::accumulate(one.begin(), one.end(), std::size_t{0},
                                            [](std::size_t sum, const auto& t) { return sum + t.size(); });
  EXPECT_GE(bytes, 24'000u);
  EXPECT_LT(bytes, 25'000u);
  EXPECT_EQ(sample_of(2, 400, 20'000, usable), one);
  EXPECT_EQ(sample_of(5, 400, 20'000, usable), one);
  for (const std::string& text : one) EXPECT_EQ(std::count(one.begin(), one.end(), text), 1) << "a copy";
}

TEST(TokenizerSample, OfLittleTextIsAllOfItInOrder) {
  std::vector<std::string> all;
  for (int i = 0; i < 20; ++i) all.push_back(document(i));
  EXPECT_EQ(sample_of(3, 20, 1 << 20, [](int) { return true; }), all);
  EXPECT_TRUE(sample_of(1, 20, 1 << 20, [](int) { return false; }).empty());
}

// A long document is taken or left by its lines, not as a whole.
TEST(TokenizerSample, CutsLongDocumentsAtLines) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; text.size() < 400'000; ++i) text += std::to_string(i * 7919) + " is a line\n";
  OneRank alone;
  TokenizerSample sample(100'000, 17);
  sample.add(0, false, text);
  const std::vector<std::string> pieces = sample.take(all_of, folder.path(), alone);
  EXPECT_EQ(pieces.size(), 2u);
  for (const std::string& piece : pieces) {
    EXPECT_EQ(piece.back(), '\n');
    EXPECT_LE(piece.size(), std::size_t{64} << 10);
    EXPECT_NE(text.find(piece), std::string::npos);
  }
  TokenizerSample whole(1 << 20, 17);
  whole.add(0, false, text);
  std::string joined;
  for (const std::string& piece : whole.take(all_of, folder.path(), alone)) joined += piece;
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace shoestring
