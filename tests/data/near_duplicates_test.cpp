#include "data/near_duplicates.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "kernels/base/random.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using Verdict = DuplicateFinder::Verdict;

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

FingerprintRows rows_of(const std::vector<Fingerprint>& prints) {
  return {reinterpret_cast<const std::byte*>(prints.data()), sizeof(Fingerprint),
          static_cast<std::int64_t>(prints.size())};
}

TEST(NearDuplicates, KeepsTheFirstOfEachGroup) {
  const testing::TemporaryFolder folder;
  OneRank alone;
  DuplicateFinder finder(folder.path(), alone);
  std::vector<Fingerprint> prints;
  const std::string a = words(1, 800);
  const std::string b = words(2, 800);
  for (const std::string& text :
       {a, b, a, edited(a, 200), edited(a, 3), std::string("x"), std::string("x"), std::string("y")}) {
    prints.push_back(fingerprint(text));
    finder.add(prints.back());
  }
  const std::vector<Verdict> verdicts = finder.finish({rows_of(prints)});
  EXPECT_EQ(verdicts,
            (std::vector<Verdict>{Verdict::keep, Verdict::keep, Verdict::exact_duplicate, Verdict::near_duplicate,
                                  Verdict::keep, Verdict::keep, Verdict::exact_duplicate, Verdict::keep}));
}

// What a rule has left out is nobody's original.
TEST(NearDuplicates, ADocumentThatIsLeftOutHasNoCopies) {
  const testing::TemporaryFolder folder;
  OneRank alone;
  DuplicateFinder finder(folder.path(), alone);
  const std::vector<Fingerprint> prints(3, fingerprint(words(1, 100)));
  finder.pass();
  finder.add(prints[1]);
  finder.add(prints[2]);
  EXPECT_EQ(finder.finish({rows_of(prints)}),
            (std::vector<Verdict>{Verdict::left_out, Verdict::keep, Verdict::exact_duplicate}));
}

TEST(NearDuplicates, ManyDocumentsSpillToFilesAndLeaveNone) {
  const testing::TemporaryFolder folder;
  {
    OneRank alone;
    DuplicateFinder finder(folder.path(), alone);
    std::vector<Fingerprint> prints;
    for (int i = 0; i < 5000; ++i) {
      prints.push_back(fingerprint(words(static_cast<std::uint32_t>(i % 2500), 30)));
      finder.add(prints.back());
    }
    int dropped = 0;
    for (const Verdict verdict : finder.finish({rows_of(prints)}))
      dropped += verdict == Verdict::exact_duplicate ? 1 : 0;
    EXPECT_EQ(dropped, 2500);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace shoestring
