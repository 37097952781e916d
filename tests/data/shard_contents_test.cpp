#include "data/shard_contents.h"

#include <gtest/gtest.h>

#include "data/shard_writer.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

class ShardContentsTest : public ::testing::Test {
 protected:
  std::string shard(const std::string& name, const std::string& source, const std::vector<std::string>& texts) const {
    const std::string path = (folder / name).string();
    ShardWriter writer(path, {.vocabulary_size = tokenizer->vocabulary_size(),
                              .end_of_document = static_cast<std::uint32_t>(tokenizer->special().end_of_document),
                              .tokenizer_hash = tokenizer->hash(),
                              .source = source});
    for (const std::string& text : texts) {
      std::vector<std::uint32_t> ids;
      tokenizer->encode(text, ids);
      writer.append(ids, text.size());
    }
    writer.finish();
    return path;
  }
  testing::TemporaryFolder folder;
  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
};

TEST_F(ShardContentsTest, CountsWhatWasWritten) {
  const std::vector<std::string> shards = {
      shard("a.h5", "web", {"a", "aaa", "aabbbb"}),       // 2, 4, 7 tokens
      shard("b.h5", "code", {std::string(40, 'b'), "c"})  // 41, 2
  };
  std::vector<std::uint64_t> told;
  const ShardContents found = look_into(
      shards, {.tokenizer = tokenizer.get(), .frequent = 3, .tell = [&](std::uint64_t read, std::uint64_t all) {
                 EXPECT_EQ(all, 56u);
                 told.push_back(read);
               }});
  EXPECT_EQ(told, (std::vector<std::uint64_t>{13, 56})) << "as far as it is, of all shards";
  EXPECT_EQ(found.shards, 2u);
  EXPECT_EQ(found.documents, 5u);
  EXPECT_EQ(found.tokens, 56u);
  EXPECT_EQ(found.tokens_per_byte, 1);
  ASSERT_EQ(found.lengths.size(), 6u);
  EXPECT_EQ(found.lengths[1].documents, 2u);
  EXPECT_EQ(found.lengths[1].tokens, 4u);
  EXPECT_EQ(found.lengths[2].documents, 2u);
  EXPECT_EQ(found.lengths[2].tokens, 11u);
  EXPECT_EQ(found.lengths[5].from, 32u);
  EXPECT_EQ(found.lengths[5].tokens, 41u);
  EXPECT_EQ(found.distinct_ids, 4u) << "a, b, c and the end of a document";
  ASSERT_EQ(found.frequent.size(), 3u);
  EXPECT_EQ(found.frequent[0].text, "b");
  EXPECT_EQ(found.frequent[0].count, 44u);
  EXPECT_EQ(found.frequent[1].text, "a");
  EXPECT_EQ(found.frequent[1].count, 6u);
  EXPECT_EQ(found.frequent[2].text, "") << "the end of a document";
  EXPECT_EQ(found.sources.at("web").documents, 3u);
  EXPECT_EQ(found.sources.at("code").tokens, 43u);
}

// Spread over all shards, none twice, cut between characters.
TEST_F(ShardContentsTest, ShowsDocumentsFromAllOver) {
  std::vector<std::string> texts;
  for (int i = 0; i < 10; ++i) texts.push_back("text " + std::to_string(i) + " \xE6\x97\xA5\xE6\x97\xA5");
  const std::vector<std::string> shards = {shard("a.h5", "web", {texts.begin(), texts.begin() + 4}),
                                           shard("b.h5", "web", {texts.begin() + 4, texts.end()})};
  const ShardContents found = look_into(shards, {.tokenizer = tokenizer.get(), .samples = 3, .sample_bytes = 12});
  ASSERT_EQ(found.samples.size(), 3u);
  EXPECT_EQ(found.samples[0].place, "a.h5, document 1");
  EXPECT_EQ(found.samples[1].place, "b.h5, document 1");
  EXPECT_EQ(found.samples[2].place, "b.h5, document 4");
  EXPECT_EQ(found.samples[0].text, "text 1 \xE6\x97\xA5") << "12 bytes end within a character";
  EXPECT_EQ(look_into(shards, {.tokenizer = tokenizer.get(), .samples = 99}).samples.size(), 10u);
  EXPECT_TRUE(look_into(shards, {}).samples.empty()) << "without a tokenizer there is no text";
}

TEST_F(ShardContentsTest, RefusesAnothersTokenizer) {
  const std::string path = shard("a.h5", "web", {"a"});
  const std::unique_ptr<Tokenizer> trained = train_sentencepiece(400, 1 << 16, [left = 400](std::string& text) mutable {
    text = "some words to train on " + std::to_string(left * left) + "\n";
    return left-- > 0;
  });
  EXPECT_THROW(look_into({path}, {.tokenizer = trained.get()}), Error);
}

}  // namespace
}  // namespace shoestring
