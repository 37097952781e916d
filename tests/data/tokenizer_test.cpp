#include "data/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <unordered_map>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

std::string round_trip(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::uint32_t> ids;
  tokenizer.encode(text, ids);
  return tokenizer.decode(std::vector<std::int32_t>(ids.begin(), ids.end()));
}

// What a user can do about it, and no line of the library's source.
TEST(Tokenizer, TrainingThatCannotBeSaysWhatWould) {
  const auto refusal = [](std::uint32_t vocabulary, std::string all) -> std::string {
    try {
      train_sentencepiece(vocabulary, 1 << 20, [&](std::string& text) {
        text = std::exchange(all, {});
        return !text.empty();
      });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      return error.what();
    }
    return "trained";
  };
  EXPECT_NE(refusal(400, "").find("no text is left"), std::string::npos) << refusal(400, "");
  std::string ideographs;
  for (int i = 0; i < 0xC0; ++i) {
    ideographs += "\xE4" + std::string(1, static_cast<char>(0xB8 + i / 0x40)) +
                  std::string(1, static_cast<char>(0x80 + i % 0x40)) + (i % 40 == 39 ? "\n" : "");
  }
  const std::string text = refusal(300, ideographs);
  EXPECT_NE(text.find("a vocabulary of 300 is too small"), std::string::npos) << text;
  EXPECT_EQ(text.find(".cc"), std::string::npos) << text;
  // The number named is enough, and no less is.
  const std::size_t at = text.find("--vocabulary ");
  ASSERT_NE(at, std::string::npos) << text;
  const auto least = static_cast<std::uint32_t>(std::stoul(text.substr(at + 13)));
  EXPECT_EQ(refusal(least, ideographs), "trained");
  EXPECT_NE(refusal(least - 1, ideographs).find("is too small"), std::string::npos) << text;
  EXPECT_NE(text.find("leaves room for merges"), std::string::npos) << text;
}

const Tokenizer& trained() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    int part = 0;
    return train_sentencepiece(600, 1 << 20, [&](std::string& text) {
      if (++part > 40) return false;
      text = "static int count_of_things(const struct thing *list, size_t size) {\n  return size + list->more;\n}\n";
      text += "/* part " + std::to_string(part * 7919) + " of the words */\n";
      return true;
    });
  }();
  return *tokenizer;
}

// What SentencePiece alone would change: bytes that are not UTF-8, its own space sign, NUL, runs of blanks, its
// markers.
std::vector<std::string> awkward_texts() {
  std::vector<std::string> texts = {"",
                                    " ",
                                    "\n\n\t ",
                                    "  two  blanks  ",
                                    "a\xFF\xFE"
                                    "b",
                                    "\xE2\x96\x81space sign\xE2\x96\x81",
                                    std::string("nul\0inside", 10),
                                    "</s><s><unk><|fim_hole|>",
                                    "\xED\xA0\x80surrogate",
                                    "caf\xC3\xA9 \xE6\x97\xA5\xE6\x9C\xAC",
                                    "\xF0\x9F\x98\x80",
                                    "cut\xE2\x96",
                                    "\xC0\xAF"};
  const Random random(1, Purpose::test);
  std::string noise;
  for (std::uint64_t i = 0; i < 70000; ++i) noise.push_back(static_cast<char>(random.below(i, 256)));
  texts.push_back(noise);
  texts.emplace_back(100000, 'x');  // longer than one encoding part, without a line end
  return texts;
}

TEST(Tokenizer, BytesRoundTrip) {
  const auto tokenizer = byte_tokenizer();
  for (const std::string& text : awkward_texts()) EXPECT_EQ(round_trip(*tokenizer, text), text);
  EXPECT_EQ(tokenizer->vocabulary_size(), 260u);
}

TEST(Tokenizer, TrainedModelLosesNothing) {
  for (const std::string& text : awkward_texts()) EXPECT_EQ(round_trip(trained(), text), text);
}

TEST(Tokenizer, TrainedModelCompressesItsKindOfText) {
  std::vector<std::uint32_t> ids;
  const std::string text = "static int count_of_things(const struct thing *list, size_t size) {\n";
  trained().encode(text, ids);
  EXPECT_LT(ids.size() * 3, text.size());
}

TEST(Tokenizer, TrainingRepeats) {
  const auto train = [] {
    int part = 0;
    return train_sentencepiece(400, 1 << 20, [&](std::string& text) {
      text = "int main(int argc, char **argv) { return argc + " + std::to_string(part) + "; }\n";
      return ++part < 60;
    });
  };
  EXPECT_EQ(train()->hash(), train()->hash());
}

TEST(Tokenizer, TextNeverBecomesASpecialId) {
  std::vector<std::uint32_t> ids;
  trained().encode("</s><|fim_begin|><|fim_hole|><|fim_end|>", ids);
  const SpecialIds special = trained().special();
  EXPECT_GE(special.fim_begin, 0);
  for (const std::uint32_t id : ids) {
    for (const std::int32_t reserved :
         {special.end_of_document, special.fim_begin, special.fim_hole, special.fim_end}) {
      EXPECT_NE(static_cast<std::int32_t>(id), reserved);
    }
  }
}

TEST(Tokenizer, FilesLoadByContent) {
  const testing::TemporaryFolder folder;
  EXPECT_TRUE(find_tokenizer(folder.path()).empty());
  testing::write_text(folder / trained().file_name(), trained().file_content());
  const auto loaded = load_tokenizer(find_tokenizer(folder.path()));
  EXPECT_EQ(loaded->hash(), trained().hash());
  testing::write_text(folder / "byte_tokenizer.json", byte_tokenizer()->file_content());
  EXPECT_EQ(load_tokenizer(folder / "byte_tokenizer.json")->vocabulary_size(), 260u);
}

// SentencePiece's own defaults, as in many published models: a blank before each text, blanks dropped, characters
// mapped.
TEST(Tokenizer, RefusesModelsThatChangeText) {
  const testing::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += "int value_" + std::to_string(i) + " = count of things;\n";
  testing::write_text(folder / "lines", lines);
  const auto load_with = [&](const std::string& key, const std::string& value) {
    std::unordered_map<std::string, std::string> settings = {
        {"input", (folder / "lines").string()},
        {"model_prefix", (folder / "tokenizer").string()},
        {"model_type", "bpe"},
        {"vocab_size", "320"},
        {"byte_fallback", "true"},
        {"normalization_rule_name", "identity"},
        {"add_dummy_prefix", "false"},
        {"remove_extra_whitespaces", "false"},
        {"minloglevel", "2"},
    };
    settings[key] = value;
    const auto status = sentencepiece::SentencePieceTrainer::Train(settings);
    ASSERT_TRUE(status.ok()) << status.ToString();
    load_tokenizer(folder / "tokenizer.model");
  };
  EXPECT_NO_THROW(load_with("add_dummy_prefix", "false"));
  for (const auto& [key, value] : {std::pair("add_dummy_prefix", "true"),
                                   {"remove_extra_whitespaces", "true"},
                                   {"normalization_rule_name", "nmt_nfkc"},
                                   {"normalization_rule_name", "nfkc"},
                                   {"normalization_rule_name", "nfkc_cf"}}) {
    try {
      load_with(key, value);
      ADD_FAILURE() << "taken: " << key << " = " << value;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      const std::string text = error.what();
      const bool map = std::string_view(key) == "normalization_rule_name";  // found before the library sees the model
      const char* why = map ? "tokenizer.model: not a tokenizer this program can use: it has a normalisation map"
                            : "tokenizer.model: the SentencePiece model changes text";
      EXPECT_NE(text.find(why), std::string::npos) << text;
      EXPECT_NE(text.find("shoestring data build"), std::string::npos) << text;
    }
  }
}

TEST(Tokenizer, AModelOfTextWithoutBlanksKeepsThem) {
  int part = 0;
  const auto tokenizer = train_sentencepiece(280, 1 << 20, [&](std::string& text) {
    text = "word" + std::to_string(part) + "\n";
    return ++part < 60;
  });
  for (const std::string& text : awkward_texts()) EXPECT_EQ(round_trip(*tokenizer, text), text);
}

TEST(Tokenizer, RefusesOtherFilesAndIds) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "tokenizer.model", "not a model");
  try {
    load_tokenizer(folder / "tokenizer.model");
    FAIL() << "a text file was taken for a tokenizer";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("tokenizer.model"), std::string::npos);
  }
  const std::vector<std::int32_t> outside = {100000};
  EXPECT_THROW(trained().decode(outside), Error);
  EXPECT_THROW(byte_tokenizer()->decode(outside), Error);
}

}  // namespace
}  // namespace shoestring
