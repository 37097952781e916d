#include "data/tokenizer_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "data/tokenizer.h"

// What the library `tokenizers` makes of these files is compared with our tokens in tests/oracle/trained_checkpoint.py.
namespace shoestring {
namespace {

using Json = nlohmann::json;

TEST(TokenizerJson, BytesHaveCharacters) {
  const auto tokenizer = byte_tokenizer();
  const TokenizerFiles files = tokenizer->companion_files();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].first, "tokenizer.json");
  const Json file = Json::parse(files[0].second);
  const Json& vocabulary = file.at("model").at("vocab");
  EXPECT_EQ(vocabulary.size(), 256u);
  EXPECT_EQ(vocabulary.at("A"), 'A');
  EXPECT_EQ(vocabulary.at("\xC4\xA0"), ' ');   // U+0120
  EXPECT_EQ(vocabulary.at("\xC3\xBF"), 0xFF);  // U+00FF, printable, for itself
  ASSERT_EQ(file.at("added_tokens").size(), 4u);
  EXPECT_EQ(file.at("added_tokens")[0].at("id"), tokenizer->special().end_of_document);
  EXPECT_EQ(file.at("added_tokens")[3].at("id"), tokenizer->special().fim_end);
  EXPECT_EQ(Json::parse(files[1].second).at("eos_token"), file.at("added_tokens")[0].at("content"));
}

BpePieces small_vocabulary() {
  using Kind = BpePieces::Kind;
  BpePieces bpe;
  bpe.pieces = {{"<unk>", 0, Kind::special}, {"</s>", 0, Kind::special}, {"<0x0A>", 0, Kind::byte},
                {"ab", -0.0f, Kind::text},   {"abc", -1, Kind::text},    {"bc", -2, Kind::text},
                {"a", -3, Kind::text},       {"b", -4, Kind::text},      {"c", -5, Kind::text}};
  bpe.end_of_document = 1;
  bpe.has_space = false;
  return bpe;
}

TEST(TokenizerJson, PiecesMergeInTheOrderOfTheirScores) {
  const Json file = Json::parse(bpe_tokenizer_files(small_vocabulary())[0].second);
  EXPECT_EQ(file.at("model").at("merges"), Json({"a b", "ab c", "a bc", "b c"}));
  EXPECT_EQ(file.at("model").at("vocab").size(), 9u);
  EXPECT_EQ(file.at("model").at("vocab").at("abc"), 4);
  EXPECT_EQ(file.at("model").at("unk_token"), "<unk>");
  EXPECT_EQ(file.at("added_tokens").size(), 2u);
}

// Of a model brought along: better a piece that nobody meets than a run that ends at its first checkpoint.
TEST(TokenizerJson, APieceThatIsNoTextIsStoredAllTheSame) {
  BpePieces bpe = small_vocabulary();
  bpe.pieces.push_back({"\xFF", -6, BpePieces::Kind::text});
  EXPECT_EQ(Json::parse(bpe_tokenizer_files(bpe)[0].second).at("model").at("vocab").size(), 10u);
}

TEST(TokenizerJson, SpacesAreReplacedWhereThePiecesKnowThem) {
  BpePieces bpe = small_vocabulary();
  EXPECT_TRUE(Json::parse(bpe_tokenizer_files(bpe)[0].second).at("normalizer").is_null());
  bpe.has_space = true;
  const Json file = Json::parse(bpe_tokenizer_files(bpe)[0].second);
  EXPECT_EQ(file.at("normalizer").at("content"), "\xE2\x96\x81");
  EXPECT_EQ(file.at("decoder").at("decoders").size(), 3u);
  EXPECT_EQ(Json::parse(bpe_tokenizer_files(bpe)[1].second).at("eos_token"), "</s>");
}

}  // namespace
}  // namespace shoestring
