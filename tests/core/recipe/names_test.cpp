#include "core/recipe/names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/recipe/keys.h"

namespace shoestring {
namespace {

TEST(Names, EditDistanceCountsSwapsOnce) {
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("pretrian", "pretrain"), 1u);
}

TEST(Names, EditDistanceIsTheSameUpToALimit) {
  const std::string_view words[] = {"", "a", "ba", "ab", "kitten", "sitting", "gpu_hours", "job_hours", "hours_gpu"};
  for (const std::string_view a : words) {
    for (const std::string_view b : words) {
      const std::size_t distance = edit_distance(a, b);
      EXPECT_EQ(edit_distance(b, a), distance) << a << " " << b;
      for (std::size_t most = 0; most < 12; ++most) {
        EXPECT_EQ(edit_distance(a, b, most), std::min(distance, most + 1)) << a << " " << b << " " << most;
      }
    }
  }
  EXPECT_EQ(edit_distance("gpu_hours", "hours_gpu"), 8u);
}

TEST(Names, NearestIsMeantOrNothing) {
  const std::string_view words[] = {"gpu_hours", "usd", "kwh", "job_hours", "global_batch"};
  EXPECT_EQ(nearest_word("gpu_hour", words), "gpu_hours");
  EXPECT_EQ(nearest_word("GPU-Hours", words), "gpu_hours");
  EXPECT_EQ(nearest_word("global_batch_size", words), "global_batch");
  EXPECT_EQ(nearest_word("temperature", words), "");
  EXPECT_EQ(nearest_word("", words), "");
  EXPECT_EQ(nearest_word(std::string(100000, 'a'), words), "");
}

// What nearest_word promises, word for word.
std::string_view nearest_by_distance(std::string_view text, std::span<const std::string_view> words) {
  std::string_view best;
  std::size_t least = SIZE_MAX;
  for (const std::string_view word : words) {
    std::size_t distance = edit_distance(text, word);
    if (text.size() >= 3 && (word.starts_with(text) || text.starts_with(word)))
      distance = std::min<std::size_t>(distance, 1);
    if (distance < least) {
      best = word;
      least = distance;
    }
  }
  const std::size_t allowed = std::max<std::size_t>(2, std::min(text.size(), best.size()) / 3);
  return least <= allowed && least < text.size() ? best : std::string_view{};
}

TEST(Names, NearestIsThatOfTheLeastDistance) {
  std::vector<std::string_view> words;
  for (const Key& key : recipe_keys()) words.push_back(key.name);
  std::uint64_t state = 7;
  const auto draw = [&](std::size_t most) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<std::size_t>(state >> 33) % most;
  };
  int found = 0;
  constexpr int kTexts = 3000;
  for (int i = 0; i < kTexts; ++i) {
    std::string text(words[draw(words.size())]);
    for (std::size_t edits = draw(6); edits > 0; --edits) {
      const std::size_t at = draw(text.size() + 1);
      const char letter = "abeimnorst_019"[draw(14)];
      if (draw(3) == 0) {
        text.insert(at, 1, letter);
      } else if (at < text.size() && draw(2) == 0) {
        text.erase(at, 1);
      } else if (at + 1 < text.size()) {
        std::swap(text[at], text[at + 1]);
      }
    }
    const std::string_view nearest = nearest_word(text, words);
    ASSERT_EQ(nearest, nearest_by_distance(text, words)) << text;
    found += nearest.empty() ? 0 : 1;
  }
  EXPECT_GT(found, kTexts / 2);
  EXPECT_LT(found, kTexts);
}

TEST(Names, EveryEnumeratorHasItsWord) {
  EXPECT_EQ(word(Architecture::deepseek_v3), "deepseek_v3");
  EXPECT_EQ(word(PrecisionPolicy::mxfp8), "mxfp8");
  EXPECT_EQ(word(ScheduleName::dualpipev), "dualpipev");
  EXPECT_EQ(word(LearningRateKind::constant), "constant");
  EXPECT_EQ(word(Horizon::steps), "steps");
  EXPECT_EQ(word(OnRepeat::go_back), "go_back");
  EXPECT_EQ(word(AllowReference::no), "no");
  EXPECT_EQ(word(RouterKindSpec::sqrt_softplus), "sqrt_softplus");
}

}  // namespace
}  // namespace shoestring
