// What a build refuses before it reads, or while it does, and what it says of what it keeps.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/corpus_build.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::write_text;

constexpr const char* kConversation =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}\n";

CorpusBuildOptions options_for(const testing::TemporaryFolder& folder) {
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "text"};
  options.out = folder / "shards";
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0;
  return options;
}

void quiet(const std::string&) {}

Error refusal(const CorpusBuildOptions& options) {
  Workers workers(1);
  try {
    build_corpus(options, workers, {quiet});
  } catch (const Error& error) {
    return error;
  }
  return Error(ExitCode::done, "nothing");
}

// Known before the first pass, which may take hours.
TEST(CorpusRefusals, ATokenizerWithoutTheFormatsTokens) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text/a.jsonl", "no conversation, and never looked at\n");
  for (const ChatFormat format :
       {ChatFormat::chatml, ChatFormat::smollm2, ChatFormat::qwen2_5, ChatFormat::sky_t1, ChatFormat::qwen3,
        ChatFormat::llama3, ChatFormat::deepseek_v3, ChatFormat::deepseek_r1, ChatFormat::deepseek_v3_1}) {
    CorpusBuildOptions options = options_for(folder);
    options.corpus.fields.chat = format;
    const Error error = refusal(options);
    EXPECT_EQ(error.code(), ExitCode::bad_data) << name(format);
    EXPECT_NE(std::string(error.what()).find("the tokenizer has no token"), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find("goes on"), std::string::npos) << error.what();
    EXPECT_FALSE(std::filesystem::exists(folder / "shards.partial"));
  }
}

TEST(CorpusRefusals, PlainTextAmongConversations) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text/a.jsonl", kConversation);
  write_text(folder / "text/notes.md", "plain text\n");
  CorpusBuildOptions options = options_for(folder);
  options.corpus.fields.chat = ChatFormat::plain;
  const Error error = refusal(options);
  EXPECT_EQ(error.code(), ExitCode::bad_data);
  EXPECT_NE(std::string(error.what()).find("notes.md: is plain text; conversations are read from lines of JSON"),
            std::string::npos)
      << error.what();
  options.corpus.extensions = {"jsonl"};
  options.out = folder / "others";
  EXPECT_EQ(refusal(options).code(), ExitCode::done);
}

TEST(CorpusRefusals, AMistypedFieldIsMendedByAnotherCommand) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text/a.jsonl", "{\"title\": \"T\", \"text\": \"A\"}\n{\"text\": \"B\"}\n");
  CorpusBuildOptions options = options_for(folder);
  options.corpus.fields.text = {"titel", "text"};
  const Error error = refusal(options);
  EXPECT_EQ(error.code(), ExitCode::bad_data);
  EXPECT_NE(std::string(error.what()).find("none of the 2 lines (or rows) has text under \"titel\""), std::string::npos)
      << error.what();
  EXPECT_NE(std::string(error.what()).find("before another command, remove that folder"), std::string::npos)
      << error.what();
  std::filesystem::remove_all(folder / "shards.partial");
  options.corpus.fields.text = {"title", "text"};
  EXPECT_EQ(refusal(options).code(), ExitCode::done);
  const Json corpus = parse_json(read_text(folder / "shards/corpus.json"), "corpus.json");
  EXPECT_EQ(corpus.at("lines_without").at("title").whole(), 1);
}

// What the report of a build is for: the first name is where to look.
TEST(CorpusRefusals, OtherBytesThanUtf8AreTold) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text/a.txt", "plain\n");
  write_text(folder / "text/b.txt", "na\xEFve\n");
  std::vector<std::string> said;
  Workers workers(1);
  build_corpus(options_for(folder), workers, {[&](const std::string& line) { said.push_back(line); }});
  EXPECT_TRUE(std::any_of(said.begin(), said.end(), [](const std::string& line) {
    return line.starts_with("1 document with bytes that are not UTF-8") && line.find("b.txt") != std::string::npos;
  }));
  const Json corpus = parse_json(read_text(folder / "shards/corpus.json"), "corpus.json");
  EXPECT_EQ(corpus.at("not_utf8").at("documents").whole(), 1);
  EXPECT_EQ(corpus.at("not_utf8").at("first").text(), (folder / "text/b.txt").string());
}

TEST(CorpusRefusals, ATokenizerSmallerThanAskedForIsTold) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "int value_" + std::to_string(i * 37) + " = compute(" + std::to_string(i) + ");\n";
  write_text(folder / "text/a.c", text);
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 60000;
  std::vector<std::string> said;
  Workers workers(1);
  const CorpusBuildResult result =
      build_corpus(options, workers, {[&](const std::string& line) { said.push_back(line); }});
  ASSERT_LT(result.vocabulary, 60000u);
  const std::string wanted = "the tokenizer has " + std::to_string(result.vocabulary) + " pieces: 60000 were asked for";
  EXPECT_TRUE(std::any_of(said.begin(), said.end(), [&](const std::string& line) { return line.starts_with(wanted); }));
}

}  // namespace
}  // namespace shoestring
