#include "data/token_spool.h"

#include <gtest/gtest.h>

#include <atomic>

#include "data/shard_report.h"
#include "tests/data/build_threads.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::write_text;

std::vector<std::uint32_t> document(int number) {
  std::vector<std::uint32_t> ids(static_cast<std::size_t>(1 + number * 37 % 50));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::uint32_t>((static_cast<int>(i) * number) % 250);
  return ids;
}

std::string shards_in(const std::filesystem::path& folder) {
  std::string all;
  for (const std::string& shard : list_shards(folder.string())) all += read_text(shard);
  return all;
}

class Spools : public ::testing::Test {
 protected:
  SplitOptions split(const std::string& where, bool masked = false) const {
    return {folder / where, "train", "made up", 400, masked};
  }
  TokenSpool spool_of(int rank, bool masked = false) const {
    return {folder.path(), split("", masked), *tokenizer, rank};
  }
  // Documents [begin, end), those that stand passed by.
  static void fill(DocumentSink& to, int begin, int end) {
    for (int i = begin; i < end; ++i) to.stands(i - begin) ? to.pass() : to.append(document(i), 10 + i % 3);
  }
  // Conversations: some end with the end of a document, learned or not, some have one inside.
  void fill_masked(DocumentSink& to, int begin, int end) const {
    for (int i = begin; i < end; ++i) {
      if (to.stands(i - begin)) {
        to.pass();
        continue;
      }
      std::vector<std::uint32_t> ids = document(i);
      const auto end_of_document = static_cast<std::uint32_t>(tokenizer->special().end_of_document);
      if (i % 3 != 0) ids.push_back(end_of_document);
      if (i % 5 == 0) ids[ids.size() / 2] = end_of_document;
      std::vector<std::uint8_t> learned;
      for (std::size_t at = 0; at < ids.size(); ++at) learned.push_back((at + static_cast<std::size_t>(i)) % 4 < 2);
      to.append_masked(ids, learned);
    }
  }
  void fill(DocumentSink& to, int begin, int end, bool masked) const {
    masked ? fill_masked(to, begin, end) : fill(to, begin, end);
  }
  testing::TemporaryFolder folder;
  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
};

// Wherever the ranks' borders lie, also within a shard, also with nothing between them.
TEST_F(Spools, GiveTheShardsOfOneWriter) {
  for (const bool masked : {false, true}) {
    const std::string whole = masked ? "whole_masked" : "whole";
    SplitWriter writer(split(whole, masked), *tokenizer);
    fill(writer, 0, 100, masked);
    writer.finish();
    EXPECT_GT(writer.shards(), 4);
    for (const std::vector<int>& borders : {std::vector<int>{0, 100}, {0, 33, 34, 100}, {0, 0, 50, 50, 100, 100}}) {
      const int ranks = static_cast<int>(borders.size()) - 1;
      const std::string name = whole + std::to_string(ranks);
      std::atomic<std::int64_t> tokens = 0;
      testing::on_ranks(ranks, [&](BuildRanks& self) {
        const auto rank = static_cast<std::size_t>(self.rank());
        TokenSpool spool = spool_of(self.rank(), masked);
        fill(spool, borders[rank], borders[rank + 1], masked);
        spool.finish();
        tokens += spool.tokens();
        write_spooled_shards(folder.path(), split(name, masked), *tokenizer, self);
        TokenSpool::remove(folder.path(), "train", self.rank());
      });
      EXPECT_EQ(shards_in(folder / name), shards_in(folder / whole)) << ranks << " ranks";
      EXPECT_EQ(tokens, writer.tokens()) << ranks << " ranks";
    }
  }
}

TEST_F(Spools, GoOnWithConversations) {
  {
    TokenSpool spool = spool_of(0, true);
    fill_masked(spool, 0, 40);
    spool.finish();
  }
  const std::string all_tokens = read_text(folder / "train.0.tokens");
  write_text(folder / "train.0.tokens", all_tokens.substr(0, all_tokens.size() / 2));
  TokenSpool spool = spool_of(0, true);
  EXPECT_GT(spool.finished_documents(), 10);
  EXPECT_LT(spool.finished_documents(), 30);
  fill_masked(spool, 0, 40);
  spool.finish();
  EXPECT_EQ(read_text(folder / "train.0.tokens"), all_tokens);
}

// What is torn or damaged is encoded again, and what lies behind it too.
TEST_F(Spools, GoOnBehindTheLastSoundDocument) {
  {
    TokenSpool spool = spool_of(0);
    fill(spool, 0, 40);
    spool.finish();
  }
  const std::filesystem::path tokens = folder / "train.0.tokens";
  const std::filesystem::path lengths = folder / "train.0.lengths";
  const std::string all_tokens = read_text(tokens);
  const std::string all_lengths = read_text(lengths);
  EXPECT_EQ(spool_of(0).finished_documents(), 40);
  write_text(tokens, all_tokens.substr(0, all_tokens.size() - 1));
  EXPECT_EQ(spool_of(0).finished_documents(), 39);
  write_text(tokens, all_tokens);
  write_text(lengths, all_lengths.substr(0, all_lengths.size() - 17));
  EXPECT_EQ(spool_of(0).finished_documents(), 38);
  write_text(lengths, all_lengths);
  std::string damaged = all_tokens;
  damaged[4] = static_cast<char>(damaged[4] ^ 1);
  write_text(tokens, damaged);
  TokenSpool spool = spool_of(0);
  EXPECT_LT(spool.finished_documents(), 2);
  fill(spool, 0, 40);
  spool.finish();
  EXPECT_EQ(spool.documents(), 40);
  EXPECT_EQ(read_text(tokens), all_tokens);
  EXPECT_EQ(read_text(lengths), all_lengths);
}

}  // namespace
}  // namespace shoestring
