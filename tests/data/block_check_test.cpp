#include "data/block_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/base/random.h"

namespace shoestring {
namespace {

TEST(BlockCheck, ChecksumIsXxh3) {
  EXPECT_EQ(checksum(""), 0x2D06800538D394C2u);  // the reference implementation's value for no bytes
  EXPECT_EQ(checksum("shoestring"), block_check::portable::checksum("shoestring", 10));
}

#if defined(__x86_64__)
template <typename Checksum, typename Largest>
void expect_portable(Checksum sum, Largest largest) {
  const Random random(1, Purpose::test);
  std::vector<std::uint32_t> words(70000);
  for (std::size_t at = 0; at < words.size(); ++at) words[at] = random.bits(at).word[0];
  for (const std::size_t count : {0u, 1u, 15u, 16u, 17u, 31u, 32u, 33u, 60u, 61u, 1000u, 16384u, 65537u}) {
    EXPECT_EQ(sum(words.data(), count * 4), block_check::portable::checksum(words.data(), count * 4));
    for (const std::uint32_t bytes : {2u, 4u}) {
      EXPECT_EQ(largest(words.data(), count, bytes), block_check::portable::largest_token(words.data(), count, bytes));
    }
  }
}

TEST(BlockCheck, Avx2Agrees) {
  if (!cpu_features().avx2) GTEST_SKIP() << "needs AVX2";
  expect_portable(block_check::avx2::checksum, block_check::avx2::largest_token);
}

TEST(BlockCheck, Avx512Agrees) {
  if (!cpu_features().avx512) GTEST_SKIP() << "needs AVX-512";
  expect_portable(block_check::avx512::checksum, block_check::avx512::largest_token);
}
#endif

TEST(BlockCheck, LargestTokenFindsEveryPlace) {
  std::vector<std::uint16_t> narrow(131, 7);
  std::vector<std::uint32_t> wide(131, 7);
  for (std::size_t at = 0; at < narrow.size(); ++at) {
    narrow[at] = 65535;
    wide[at] = 0xFFFFFFFFu;
    EXPECT_EQ(largest_token(narrow.data(), narrow.size(), 2), 65535u);
    EXPECT_EQ(largest_token(wide.data(), wide.size(), 4), 0xFFFFFFFFu);
    narrow[at] = 7;
    wide[at] = 7;
  }
  EXPECT_EQ(largest_token(narrow.data(), narrow.size(), 2), 7u);
}

TEST(BlockCheck, WidenKeepsEveryId) {
  std::vector<std::uint16_t> narrow(65536);
  for (std::size_t at = 0; at < narrow.size(); ++at) narrow[at] = static_cast<std::uint16_t>(at);
  std::vector<std::int32_t> out(narrow.size());
  widen_tokens(narrow.data(), narrow.size(), 2, out.data());
  for (std::size_t at = 0; at < out.size(); ++at) ASSERT_EQ(out[at], static_cast<std::int32_t>(at));
}

}  // namespace
}  // namespace shoestring
