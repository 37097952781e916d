#include "data/corpus_build.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "data/shard.h"
#include "data/shard_report.h"
#include "data/tokenizer.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::write_text;

std::string file_text(int number) {
  std::string text;
  for (int line = 0; line < 60; ++line) {
    text += "int value_" + std::to_string(number * 1009 + line * line) + " = compute(" + std::to_string(line * number) +
            ");\n";
  }
  return text;
}

CorpusBuildOptions options_for(const testing::TemporaryFolder& folder) {
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "text"};
  options.out = folder / "shards";
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0.2;
  options.shard_tokens = 20000;
  return options;
}

void quiet(const std::string&) {}

// Every document of a split, decoded.
std::vector<std::string> documents_of(const std::filesystem::path& split, const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const std::string& path : list_shards(split.string())) {
    const Shard shard = Shard::open(path);
    std::uint64_t begin = 0;
    for (const std::uint64_t end : shard.doc_ends()) {
      std::vector<std::int32_t> ids(end - begin);
      shard.read(begin, end - begin, ids.data());
      texts.push_back(tokenizer.decode(ids));
      begin = end;
    }
  }
  return texts;
}

TEST(CorpusBuild, EveryDocumentLandsInExactlyOneSplit) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 100; ++i) write_text(folder / "text" / (std::to_string(i) + ".c"), file_text(i));
  write_text(folder / "text" / "copy.c", file_text(3));
  Workers workers(2);
  const CorpusBuildResult result = build_corpus(options_for(folder), workers, {quiet});
  EXPECT_EQ(result.exact_duplicates, 1);
  EXPECT_EQ(result.near_duplicates, 0);
  const auto tokenizer = byte_tokenizer();
  std::vector<std::string> train = documents_of(folder / "shards" / "train", *tokenizer);
  const std::vector<std::string> held = documents_of(folder / "shards" / "validation", *tokenizer);
  EXPECT_GT(list_shards((folder / "shards" / "train").string()).size(), 1u);
  EXPECT_NEAR(static_cast<double>(held.size()), 20, 12);
  train.insert(train.end(), held.begin(), held.end());
  std::vector<std::string> expected;
  for (int i = 0; i < 100; ++i) expected.push_back(file_text(i));
  std::sort(train.begin(), train.end());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(train, expected);

  std::istringstream names(read_text(folder / "shards" / "held_out.txt"));
  std::size_t named = 0;
  for (std::string name; std::getline(names, name); ++named)
    EXPECT_NE(std::find(held.begin(), held.end(), read_text(name)), held.end());
  EXPECT_EQ(named, held.size());
}

// The first thing a newcomer tries: both sides of a single file, together all of it, and the end by name.
TEST(CorpusBuild, OneFileHasValidationToo) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 40; ++i) text += file_text(i);
  write_text(folder / "input.txt", text);
  CorpusBuildOptions options = options_for(folder);
  options.corpus.inputs = {folder / "input.txt"};
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 400;
  options.hold_out = 0.01;
  options.corpus.limit_bytes = 0;
  Workers workers(1);
  std::string said;
  const CorpusBuildResult result =
      build_corpus(options, workers, {[&](const std::string& line) { said += line + "\n"; }});
  const auto tokenizer = load_tokenizer(folder / "shards" / "tokenizer.model");
  const std::string train = documents_of(folder / "shards" / "train", *tokenizer).at(0);
  const std::string held = documents_of(folder / "shards" / "validation", *tokenizer).at(0);
  EXPECT_EQ(train + held, text);
  EXPECT_NEAR(static_cast<double>(held.size()), 0.01 * static_cast<double>(text.size()), 100);
  EXPECT_EQ(result.validation_bytes, static_cast<std::int64_t>(held.size()));
  EXPECT_NE(said.find("the end of the text is held out"), std::string::npos) << said;
  EXPECT_EQ(read_text(folder / "shards" / "held_out.txt"),
            (folder / "input.txt").string() + " from byte " + std::to_string(train.size()) + "\n");
}

// Text drawn for the tokenizer comes in pieces: one long document is not all or nothing.
TEST(CorpusBuild, ALongFileHasATokenizerFromASmallSample) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; text.size() < 600'000; ++i) text += file_text(i);
  for (int i = 0; i < 2; ++i) write_text(folder / "text" / std::to_string(i), text + std::to_string(i));
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 400;
  options.tokenizer_sample_bytes = 1 << 16;
  options.near_threshold = 1.1;
  Workers workers(2);
  EXPECT_GT(build_corpus(options, workers, {quiet}).vocabulary, 300u);
}

// The library that trains knows no stopping: it is left, and the next build ends as if nothing had been.
TEST(CorpusBuild, IsStoppedWhileATokenizerIsTrained) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 40; ++i) write_text(folder / "text" / std::to_string(i), file_text(i));
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 400;
  Workers workers(2);
  bool training = false;
  const BuildHooks stopping = {
      .say = quiet,
      .progress = [&](const BuildProgress& at) { training = training || at.doing == "training a tokenizer"; },
      .stop = [&] { return training; }};
  try {
    build_corpus(options, workers, stopping);
    FAIL() << "it was not stopped";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::preempted);
    EXPECT_NE(std::string(error.what()).find("stopped while training a tokenizer\nwhat is done is kept"),
              std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "shards.partial" / "tokenizer.model"));
  build_corpus(options, workers, {quiet});
  options.out = folder / "undisturbed";
  build_corpus(options, workers, {quiet});
  EXPECT_EQ(read_text(folder / "shards" / "tokenizer.model"), read_text(folder / "undisturbed" / "tokenizer.model"));
}

// A vocabulary that the text has not the characters for is refused in the process that trains.
TEST(CorpusBuild, WhyATokenizerCannotBeTrainedIsTold) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 40; ++i) write_text(folder / "text" / std::to_string(i), file_text(i));
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 262;
  Workers workers(1);
  try {
    build_corpus(options, workers, {quiet});
    FAIL() << "trained";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("a vocabulary of 262 is too small"), std::string::npos) << error.what();
  }
}

// Why there is nothing, by kind.
TEST(CorpusBuild, InputWithoutTextIsToldByKind) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text" / "a.lz4", "\x04\x22\x4D\x18");
  write_text(folder / "text" / "b", "");
  std::filesystem::create_symlink("b", folder / "text" / "c");
  Workers workers(1);
  try {
    build_corpus(options_for(folder), workers, {quiet});
    FAIL() << "shards of nothing";
  } catch (const Error& error) {
    const std::string text = error.what();
    for (const char* part : {"1 link:", "1 lz4 file: unpack first", "1 empty document"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

TEST(CorpusBuild, ANameThatMakesPlainTextOfLinesIsToldAndStored) {
  const testing::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 30; ++i) lines += Json::object({{"text", file_text(i)}}).dump() + "\n";
  write_text(folder / "blob", lines);
  CorpusBuildOptions options = options_for(folder);
  options.corpus.inputs = {folder / "blob"};
  Workers workers(1);
  std::vector<std::string> said;
  const CorpusBuildResult result =
      build_corpus(options, workers, {[&](const std::string& line) { said.push_back(line); }});
  ASSERT_EQ(result.doubtful.size(), 1u);
  EXPECT_EQ(std::count(said.begin(), said.end(), result.doubtful[0]), 1);
  const Json stored = parse_json(read_text(folder / "shards" / "corpus.json"), "corpus.json");
  EXPECT_EQ(stored.at("doubtful").items().at(0).text(), result.doubtful[0]);
}

TEST(CorpusBuild, WhatWasLeftOutIsToldAndStored) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 30; ++i) write_text(folder / "text" / (std::to_string(i) + ".c"), file_text(i));
  write_text(folder / "text" / "a.lz4", "\x04\x22\x4D\x18");
  Workers workers(1);
  std::string said;
  build_corpus(options_for(folder), workers, {[&](const std::string& line) { said += line + "\n"; }});
  EXPECT_NE(said.find("passed over: 1 lz4 file: unpack first"), std::string::npos) << said;
  const Json stored = parse_json(read_text(folder / "shards" / "corpus.json"), "corpus.json");
  EXPECT_EQ(stored.at("passed_over").at("not_text").at("lz4").whole(), 1);
}

TEST(CorpusBuild, IsAFunctionOfItsInput) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 60; ++i) write_text(folder / "text" / (std::to_string(i) + ".c"), file_text(i));
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 400;
  Workers one(1);
  build_corpus(options, one, {quiet});
  options.out = folder / "again";
  Workers three(3);
  build_corpus(options, three, {quiet});
  for (const char* split : {"train", "validation"}) {
    const auto first = list_shards((folder / "shards" / split).string());
    const auto second = list_shards((folder / "again" / split).string());
    ASSERT_EQ(first.size(), second.size());
    for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(read_text(first[i]), read_text(second[i]));
  }
}

std::map<std::string, std::string> files_in(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = read_text(entry.path());
  }
  return files;
}

// Stopped before every batch in turn, and gone on with each time.
TEST(CorpusBuild, AStoppedBuildGoesOnToTheSameBytes) {
  const testing::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += Json::object({{"text", file_text(i)}}).dump() + "\n";
  for (int i = 0; i < 8; ++i) write_text(folder / "text" / (std::to_string(i) + ".jsonl"), lines + lines);
  CorpusBuildOptions options = options_for(folder);
  options.tokenizer = TokenizerChoice::train;
  options.vocabulary = 400;
  options.near_threshold = 1.1;
  options.batch_bytes = 60'000;
  Workers workers(2);
  options.out = folder / "undisturbed";
  build_corpus(options, workers, {quiet});
  options.out = folder / "shards";
  int stops = 0;
  int trained = 0;
  int left_training = 0;
  bool passed_by = false;
  for (int batches = 1;; batches += 3) {
    int left = batches;
    try {
      build_corpus(options, workers,
                   {.say =
                        [&](const std::string& said) {
                          trained += said.starts_with("training a tokenizer") ? 1 : 0;
                          passed_by = passed_by || said.find("stand in finished ones") != std::string::npos;
                        },
                    .stop = [&] { return --left == 0; }});
      break;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ExitCode::preempted) << error.what();
      const std::string text = error.what();
      ASSERT_NE(text.find("the same command goes on"), std::string::npos) << text;
      ++stops;
      left_training += text.starts_with("stopped while training a tokenizer") ? 1 : 0;
    }
  }
  EXPECT_GT(stops, 5);
  EXPECT_EQ(trained, 1 + left_training) << "a tokenizer that is there is not trained again";
  EXPECT_TRUE(passed_by) << "no build met a shard of the one before";
  EXPECT_EQ(files_in(folder / "shards"), files_in(folder / "undisturbed"));
}

// A build that failed over a bad line goes on when that is mended; what was made of other text is not used.
TEST(CorpusBuild, ChangedInputIsBuiltAsIfFromTheBeginning) {
  const testing::TemporaryFolder folder;
  for (int i = 0; i < 40; ++i) write_text(folder / "text" / (std::to_string(100 + i) + ".c"), file_text(i));
  CorpusBuildOptions options = options_for(folder);
  options.batch_bytes = 10'000;
  Workers workers(1);
  int left = 13;
  EXPECT_THROW(build_corpus(options, workers, {.say = quiet, .stop = [&] { return --left == 0; }}), Error);
  EXPECT_FALSE(std::filesystem::is_empty(folder / "shards.partial" / "train")) << "it was to be in its second pass";
  write_text(folder / "text" / "105.c", file_text(99));
  build_corpus(options, workers, {quiet});
  options.out = folder / "undisturbed";
  build_corpus(options, workers, {quiet});
  EXPECT_EQ(files_in(folder / "shards"), files_in(folder / "undisturbed"));
}

// Shards are written in a second pass over the input, by the verdicts of the first.
TEST(CorpusBuild, RefusesInputThatChangesMeanwhile) {
  enum class Change { grows, shrinks, differs };
  for (const Change how : {Change::grows, Change::shrinks, Change::differs}) {
    const testing::TemporaryFolder folder;
    for (int i = 0; i < 9; ++i) write_text(folder / "text" / (std::to_string(i) + ".c"), file_text(i));
    Workers workers(1);
    const auto change = [&](const std::string& said) {
      if (said != "writing shards") return;
      if (how == Change::grows) write_text(folder / "text" / "5b.c", file_text(10));
      if (how == Change::shrinks) std::filesystem::remove(folder / "text" / "5.c");
      if (how == Change::differs) write_text(folder / "text" / "5.c", file_text(10));
    };
    try {
      build_corpus(options_for(folder), workers, {change});
      FAIL() << "documents were written by the verdicts of others";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find("changed since it was read first: 9"), std::string::npos)
          << error.what();
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "shards"));
  }
}

TEST(CorpusBuild, LeavesNothingBehindWhenItFails) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text" / "bad.jsonl", "{\n");
  Workers workers(1);
  EXPECT_THROW(build_corpus(options_for(folder), workers, {quiet}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "shards"));
  EXPECT_FALSE(std::filesystem::exists(folder / "shards.partial"));
  std::filesystem::create_directory(folder / "shards");
  try {
    build_corpus(options_for(folder), workers, {quiet});
    FAIL() << "an existing folder was built into";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
  }
}

TEST(CorpusBuild, RefusesToWriteIntoWhatItReads) {
  const testing::TemporaryFolder folder;
  write_text(folder / "text" / "a.c", file_text(1));
  Workers workers(1);
  for (const char* inside : {"text/shards", "text/deep/shards", "shards/../text/shards/"}) {
    CorpusBuildOptions options = options_for(folder);
    options.out = folder / inside;
    EXPECT_THROW(build_corpus(options, workers, {quiet}), Error) << inside;
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "text"), {}), 1);
  CorpusBuildOptions beside = options_for(folder);
  beside.out = folder / "text_shards/";
  beside.hold_out = 0;
  build_corpus(beside, workers, {quiet});
  EXPECT_TRUE(std::filesystem::exists(folder / "text_shards" / "corpus.json"));
}

std::string conversation(int number) {
  return fmt::format(
      R"({{"messages": [{{"role": "user", "content": "what is {0}?"}}, {{"role": "assistant", "content": "it is {0}."}}, )"
      R"({{"role": "user", "content": "sure?"}}, {{"role": "assistant", "content": "yes, {0}."}}]}})",
      number);
}

TEST(CorpusBuild, ConversationsStayWholeAndAreMasked) {
  const testing::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 50; ++i) lines += conversation(i) + "\n";
  lines += conversation(7) + "\n" + R"({"messages": [{"role": "user", "content": "alone"}]})" + "\n";
  write_text(folder / "chats.jsonl", lines);
  Workers workers(2);
  CorpusBuildOptions options = options_for(folder);
  options.corpus.inputs = {folder / "chats.jsonl"};
  options.corpus.fields.chat = ChatFormat::plain;
  options.near_threshold = 2;
  EXPECT_THROW(build_corpus(options, workers, {quiet}), Error) << "the last line teaches nothing";
  std::filesystem::remove_all(folder / "shards.partial");
  options.corpus.skip_bad = 0.1;
  for (const bool last : {false, true}) {
    options.last_reply_alone = last;
    std::filesystem::remove_all(folder / "shards");
    const CorpusBuildResult result = build_corpus(options, workers, {quiet});
    EXPECT_EQ(result.exact_duplicates, 1);
    EXPECT_EQ(result.read.bad_lines, 1);
    EXPECT_EQ(result.train_documents + result.validation_documents, 50);
    EXPECT_GT(result.validation_documents, 0);
    const Shard shard = Shard::open(folder / "shards" / "train" / "train-00000.h5");
    std::vector<std::int32_t> marked(shard.doc_ends()[0]);
    shard.read_marked(0, marked.size(), marked.data());
    std::string learned;
    int ends = 0;
    for (const std::int32_t token : marked) {
      if (token >= 0 && token < 256) learned += static_cast<char>(token);
      ends += token == 256 ? 1 : 0;
    }
    EXPECT_EQ(learned, last ? "yes, 0." : "it is 0.yes, 0.");
    EXPECT_EQ(ends, last ? 1 : 2);
    EXPECT_TRUE(verify_shard(folder / "shards" / "train" / "train-00000.h5").sound());
    const Json corpus = parse_json(read_text(folder / "shards" / "corpus.json"), "corpus.json");
    EXPECT_EQ(corpus.at("chat_format").text(), "plain");
  }
}

}  // namespace
}  // namespace shoestring
