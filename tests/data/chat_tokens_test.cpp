#include "data/chat_tokens.h"

#include <gtest/gtest.h>

#include "data/byte_characters.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::int32_t kStart = 257, kEnd = 258, kThink = 259, kNewlines = 260;

// Bytes, control tokens, and one merge: two line ends are one token.
std::unique_ptr<Tokenizer> tokenizer() {
  const auto characters = byte_characters();
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary.add(characters[static_cast<std::size_t>(byte)], byte);
  vocabulary.add(characters['\n'] + characters['\n'], kNewlines);
  Json merges = Json::array();
  merges.push(characters['\n'] + " " + characters['\n']);
  Json added = Json::array();
  const auto add = [&](int id, const char* content, bool special) {
    added.push(Json::object({{"id", id}, {"content", content}, {"special", special}}));
  };
  add(256, "<|endoftext|>", true);
  add(kStart, "<|im_start|>", true);
  add(kEnd, "<|im_end|>", true);
  add(kThink, "<think>", false);
  const Json file = Json::object(
      {{"added_tokens", std::move(added)},
       {"pre_tokenizer", Json::object({{"type", "ByteLevel"}, {"add_prefix_space", false}})},
       {"model", Json::object({{"type", "BPE"}, {"vocab", std::move(vocabulary)}, {"merges", std::move(merges)}})}});
  return tokenizer_from(file.dump(), "t");
}

ChatTokens encoded(ChatFormat format, std::string question, std::string answer) {
  const Conversation one{{{.role = ChatRole::user, .content = std::move(question)},
                          {.role = ChatRole::assistant, .content = std::move(answer)}}};
  return encode_chat(render_chat(format, one), *tokenizer());
}

std::string shown(const ChatTokens& tokens) {
  const std::vector<std::int32_t> ids(tokens.ids.begin(), tokens.ids.end());
  return marked_text(ids, tokens.learned, *tokenizer(), "[", "]");
}

TEST(ChatTokens, TokensAreWrittenByTheFormatAlone) {
  const ChatTokens tokens = encoded(ChatFormat::chatml, "<|im_end|>", "<|im_start|>");
  EXPECT_EQ(std::count(tokens.ids.begin(), tokens.ids.end(), kStart), 2);
  EXPECT_EQ(std::count(tokens.ids.begin(), tokens.ids.end(), kEnd), 2);
  EXPECT_EQ(shown(tokens), "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n[<|im_start|><|im_end|>]\n");
}

TEST(ChatTokens, AReplysTokensAreThoseThatFollowItsPrompt) {
  const ChatTokens tokens = encoded(ChatFormat::chatml, "q", "\n\na");
  EXPECT_EQ(std::count(tokens.ids.begin(), tokens.ids.end(), kNewlines), 0)
      << "\"assistant\\n\" + \"\\na\" do not merge";
  EXPECT_EQ(shown(tokens), "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[\n\na<|im_end|>]\n");
  const ChatTokens question = encoded(ChatFormat::chatml, "\n\nq", "a");
  EXPECT_EQ(std::count(question.ids.begin(), question.ids.end(), kNewlines), 1) << "elsewhere text is one text";
  EXPECT_EQ(tokens.learned_tokens(), 4);
}

TEST(ChatTokens, MarksAreTokensWhereThereAreSuchAndTextElsewhere) {
  const ChatTokens tokens = encoded(ChatFormat::qwen3, "q", "a");
  EXPECT_EQ(std::count(tokens.ids.begin(), tokens.ids.end(), kThink), 1);
  EXPECT_EQ(shown(tokens),
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[<think>\n\n</think>\n\na<|im_end|>]\n");
}

TEST(ChatTokens, ATokenizerWithoutTheTokensIsRefused) {
  try {
    encoded(ChatFormat::llama3, "q", "a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("<|begin_of_text|>"), std::string::npos) << error.what();
  }
  const ChatTokens plain = encoded(ChatFormat::plain, "q: ", "a");
  EXPECT_EQ(plain.ids, (std::vector<std::uint32_t>{'q', ':', ' ', 'a', 256}));
  EXPECT_EQ(shown(plain), "q: [a<|endoftext|>]");
}

TEST(ChatTokens, EndsAreTheFormatsAndTheDocuments) {
  EXPECT_EQ(chat_end_ids(ChatFormat::qwen3, *tokenizer()), (std::vector<std::int32_t>{256, kEnd}));
  EXPECT_EQ(chat_end_ids(ChatFormat::llama3, *tokenizer()), (std::vector<std::int32_t>{256}));
}

}  // namespace
}  // namespace shoestring
