#include "data/near_duplicates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include "data/working_file.h"
#include "kernels/base/random.h"
#include "tests/data/build_threads.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

std::string words(std::uint32_t stream, int count) {
  const Random random(5, Purpose::test, stream);
  std::string text;
  for (int i = 0; i < count; ++i)
    text += "word" + std::to_string(random.below(static_cast<std::uint64_t>(i), 5000)) + " ";
  return text;
}

// Replaces every `period`-th word.
std::string edited(const std::string& text, int period) {
  std::string result;
  int word = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find(' ', begin);
    result += ++word % period == 0 ? "edit" + std::to_string(word) : text.substr(begin, end - begin);
    result += ' ';
    begin = end + 1;
  }
  return result;
}

double true_similarity(const std::string& a, const std::string& b) {
  const auto shingles = [](const std::string& text) {
    std::vector<std::string> list;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = text.find(' ', begin);
      list.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    std::set<std::string> set;
    for (std::size_t i = 0; i + 5 <= list.size(); ++i) {
      set.insert(list[i] + list[i + 1] + list[i + 2] + list[i + 3] + list[i + 4]);
    }
    return set;
  };
  const auto left = shingles(a);
  const auto right = shingles(b);
  std::size_t both = 0;
  for (const std::string& shingle : left) both += right.count(shingle);
  return static_cast<double>(both) / static_cast<double>(left.size() + right.size() - both);
}

TEST(NearDuplicates, EstimatesTheJaccardSimilarity) {
  const std::string text = words(1, 2000);
  for (const int period : {10, 20, 50, 200}) {
    const std::string other = edited(text, period);
    // 64 minima: standard error sqrt(J (1 - J) / 64) <= 0.0625; four of them.
    EXPECT_NEAR(similarity(fingerprint(text), fingerprint(other)), true_similarity(text, other), 0.25) << period;
  }
  EXPECT_LT(similarity(fingerprint(text), fingerprint(words(2, 2000))), 0.1);
}

enum class Found : std::uint8_t { none, near, exact };

// What a rank finds about its documents; those that are nothing are passed by.
std::vector<Found> found_by(const std::filesystem::path& folder, BuildRanks& ranks,
                            const std::vector<std::optional<std::string>>& texts) {
  DuplicateFinder finder(folder, ranks);
  WorkingFile file(folder / std::to_string(ranks.rank()), WorkingFile::Content::none);
  constexpr std::int64_t kRecord = sizeof(Fingerprint) + 8;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const Fingerprint print = fingerprint(texts[i].value_or("passed by"));
    file.write(static_cast<std::int64_t>(i) * kRecord, &print, kRecord - 8);
    texts[i] ? finder.add(print) : finder.pass();
  }
  file.cut(static_cast<std::int64_t>(texts.size()) * kRecord);
  ranks.wait_for_all();
  std::vector<FingerprintRows> rows;
  for (int rank = 0; rank < ranks.size(); ++rank) rows.emplace_back(folder / std::to_string(rank), kRecord);
  std::vector<Found> found(texts.size(), Found::none);
  std::int64_t last = 0;
  int ticks = 0;
  finder.finish(
      rows, 0.8,
      [&](std::int64_t document, bool exact) {
        EXPECT_GE(document, last) << "not in order";
        last = document;
        found.at(static_cast<std::size_t>(document)) = exact ? Found::exact : Found::near;
      },
      [&] { ++ticks; });
  EXPECT_GT(ticks, 0);
  ranks.wait_for_all();
  file.remove();
  return found;
}

std::vector<Found> found_alone(const std::vector<std::optional<std::string>>& texts) {
  const testing::TemporaryFolder folder;
  OneRank alone;
  std::vector<Found> found = found_by(folder.path(), alone, texts);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  return found;
}

TEST(NearDuplicates, KeepsTheFirstOfEachGroup) {
  const std::string a = words(1, 800), b = words(2, 800);
  EXPECT_EQ(found_alone({a, b, a, edited(a, 200), edited(a, 3), "x", "x", "y"}),
            (std::vector<Found>{Found::none, Found::none, Found::exact, Found::near, Found::none, Found::none,
                                Found::exact, Found::none}));
}

// What a rule has left out is nobody's original.
TEST(NearDuplicates, ADocumentThatIsLeftOutHasNoCopies) {
  const std::string text = words(1, 100);
  EXPECT_EQ(found_alone({std::nullopt, text, text}), (std::vector<Found>{Found::none, Found::none, Found::exact}));
}

// Copies of each other in parts of any size, one of them empty.
TEST(NearDuplicates, RanksFindWhatOneFinds) {
  std::vector<std::optional<std::string>> texts;
  for (int i = 0; i < 600; ++i) {
    const std::string text = words(static_cast<std::uint32_t>(i % 250), 60);
    texts.push_back(i % 50 == 49 ? std::nullopt : std::optional(i % 3 == 2 ? edited(text, 50) : text));
  }
  const std::vector<Found> one = found_alone(texts);
  EXPECT_GT(std::count(one.begin(), one.end(), Found::exact), 50);
  EXPECT_GT(std::count(one.begin(), one.end(), Found::near), 50);
  const std::size_t borders[] = {0, 200, 200, 590, texts.size()};
  constexpr int kRanks = 4;
  const testing::TemporaryFolder folder;
  std::vector<std::vector<Found>> parts(kRanks);
  testing::on_ranks(kRanks, [&](BuildRanks& self) {
    const auto rank = static_cast<std::size_t>(self.rank());
    const auto from = texts.begin() + static_cast<std::ptrdiff_t>(borders[rank]);
    const auto to = texts.begin() + static_cast<std::ptrdiff_t>(borders[rank + 1]);
    parts[rank] = found_by(folder.path(), self, {from, to});
  });
  std::vector<Found> together;
  for (const std::vector<Found>& part : parts) together.insert(together.end(), part.begin(), part.end());
  EXPECT_EQ(together, one);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace shoestring
