#include "data/unpack.h"

#include <gtest/gtest.h>

#include "tests/data/packed.h"

namespace shoestring {
namespace {

TEST(Unpack, KnowsWhatItsStreamsBeginWith) {
  for (const Packing& packing : packings()) {
    const std::string bytes = testing::packed(packing.name, "text");
    const Packing* found = packing_of(bytes);
    ASSERT_NE(found, nullptr) << packing.name;
    EXPECT_EQ(found->name, packing.name);
    EXPECT_EQ(packing_of(testing::packed(packing.name, ""))->name, packing.name) << "an empty one";
    EXPECT_EQ(packing_of(bytes.substr(0, 2)), nullptr);
  }
  EXPECT_EQ(packing_of("BZh is a word at the beginning of a text"), nullptr);
  EXPECT_EQ(packing_of(""), nullptr);
  EXPECT_EQ(packing_of(std::string("\x5A\x2A\x4D\x18\0\0\0\0", 8))->name, "zstd") << "a frame to be skipped";
}

TEST(Unpack, NamesLoseOneEndingOfAPacker) {
  EXPECT_EQ(without_packing("a.jsonl.gz"), "a.jsonl");
  EXPECT_EQ(without_packing("a.jsonl.zst"), "a.jsonl");
  EXPECT_EQ(without_packing("a.jsonl.zstd"), "a.jsonl");
  EXPECT_EQ(without_packing("a.txt.xz"), "a.txt");
  EXPECT_EQ(without_packing("a.bz2"), "a");
  EXPECT_EQ(without_packing("a.gz.gz"), "a.gz");
  EXPECT_EQ(without_packing("a.txt"), "a.txt");
  EXPECT_EQ(without_packing(".gz"), ".gz");
}

}  // namespace
}  // namespace shoestring
