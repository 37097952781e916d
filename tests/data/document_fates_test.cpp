#include "data/document_fates.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

constexpr std::int64_t kBlock = 4096;

TEST(DocumentFates, AreWhatWasSaidOfEach) {
  for (const std::int64_t count : {std::int64_t{1}, kBlock - 1, kBlock, kBlock + 1, 3 * kBlock + 7}) {
    const testing::TemporaryFolder folder;
    DocumentFates fates(folder / "fates");
    const auto verdict = [](std::int64_t i) {
      return i % 3 == 0 ? DocumentVerdict::near_duplicate : DocumentVerdict::keep;
    };
    for (std::int64_t i = 0; i < count; ++i) {
      fates.append({.bytes = static_cast<std::uint32_t>(i), .drawn = static_cast<std::uint8_t>(i % 2)});
      if (i % 1000 == 500) {
        EXPECT_EQ(fates[i / 2].bytes, i / 2) << "while more come";
      }
    }
    EXPECT_EQ(fates.count(), count);
    for (std::int64_t i = 0; i < count; i += 3) fates.judge(i, verdict(i));
    for (std::int64_t i = count - 1; i >= 0; i -= 1 + i / 100) {
      EXPECT_EQ(fates[i].bytes, i);
      EXPECT_EQ(fates[i].drawn, i % 2);
      EXPECT_EQ(fates[i].verdict, verdict(i)) << i << " of " << count;
    }
    EXPECT_THROW(fates[count], Error);
  }
}

TEST(DocumentFates, LeaveNoFile) {
  const testing::TemporaryFolder folder;
  { DocumentFates(folder / "fates").append({}); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace shoestring
