#include "data/sentencepiece_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "data/tokenizer.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::string field(int number, int kind, const std::string& bytes) {
  std::string text(1, static_cast<char>(number << 3 | kind));
  if (kind == 2) text += static_cast<char>(bytes.size());  // below 128 here
  return text + bytes;
}

std::string piece(const std::string& text, float score = 0) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &score, sizeof(score));
  return field(1, 2, field(1, 2, text) + field(2, 5, bytes));
}

/// What loading says of a model.
std::string refusal(const std::string& model) {
  try {
    tokenizer_from(model, "the file");
    return {};
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    return error.what();
  }
}

const std::string& trained() {
  static const std::string model = [] {
    int part = 0;
    return train_sentencepiece(300, 1 << 16,
                               [&](std::string& text) {
                                 text = "int count(void) { return " + std::to_string(part * 7919) + "; }\n";
                                 return ++part < 40;
                               })
        ->file_content();
  }();
  return model;
}

TEST(SentencePieceCheck, WhatWasTrainedHereIsSound) {
  EXPECT_EQ(sentencepiece_unsoundness(trained()), "");
  EXPECT_EQ(refusal(trained()), "");
  EXPECT_EQ(sentencepiece_unsoundness(piece("a") + piece("b", -1)), "");
}

TEST(SentencePieceCheck, PiecesThatTheLibraryThrowsOver) {
  EXPECT_NE(refusal(piece("a") + piece("")).find("piece 1 is empty"), std::string::npos);
  EXPECT_NE(refusal(field(1, 2, "")).find("piece 0 is empty"), std::string::npos);
  EXPECT_NE(sentencepiece_unsoundness(piece("a", std::nanf(""))).find("score"), std::string::npos);
  EXPECT_NE(sentencepiece_unsoundness(piece("a", HUGE_VALF)).find("score"), std::string::npos);
  EXPECT_NE(sentencepiece_unsoundness(field(1, 2, field(1, 0, "\x05"))).find("text of piece 0"), std::string::npos);
}

TEST(SentencePieceCheck, NormalisationMapsAreRefusedBeforeTheLibraryFollowsThem) {
  for (const int normalizer : {3, 5}) {
    const std::string map = field(normalizer, 2, field(1, 2, "nmt") + field(2, 2, "\x04xxxx"));
    EXPECT_NE(refusal(piece("a") + map).find("normalisation map"), std::string::npos);
    EXPECT_NE(refusal(trained() + map).find("normalisation map"), std::string::npos);
    EXPECT_EQ(sentencepiece_unsoundness(piece("a") + field(normalizer, 2, field(2, 2, ""))), "");
  }
}

TEST(SentencePieceCheck, BrokenMessages) {
  EXPECT_NE(refusal(""), "");
  EXPECT_NE(refusal("not a model"), "");
  const std::string group(1, static_cast<char>(1 << 3 | 3));
  std::string groups;
  for (int i = 0; i < 100000; ++i) groups += group;
  EXPECT_NE(refusal(groups), "");
  EXPECT_NE(refusal(piece("a") + "\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "");
  EXPECT_NE(refusal(field(1, 2, field(1, 2, "ab").substr(0, 3))), "");
  for (std::size_t length = 0; length < trained().size(); length += 13) refusal(trained().substr(0, length));
}

TEST(SentencePieceCheck, AnyByteOfAModelChanged) {
  for (std::size_t at = 0; at < trained().size(); at += 11) {
    for (const int change : {0xFF, 1 << (at % 8)}) {
      std::string model = trained();
      model[at] = static_cast<char>(model[at] ^ change);
      refusal(model);  // taken or Error(bad_data), never anything else
    }
  }
}

}  // namespace
}  // namespace shoestring
