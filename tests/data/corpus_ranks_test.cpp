// Many ranks build what one does: corpus_build, corpus_passes, token_spool, tokenizer_sample and build_ranks together.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "data/corpus_build.h"
#include "data/piped_input.h"
#include "data/shard.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/data/build_threads.h"
#include "tests/data/packed.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::on_ranks;
using testing::read_text;
using testing::write_text;

void quiet(const std::string&) {}

std::string document(int number) {
  std::string text;
  for (int line = 0; line < 12; ++line) {
    text += "statement " + std::to_string(number * 1009 + line * line) + " follows from lemma " +
            std::to_string(line * number) + "\n";
  }
  return text;
}

std::string lines_of(int begin, int end) {
  std::string lines;
  for (int i = begin; i < end; ++i) {
    lines += Json::object({{"text", document(i)}, {"n", i}}).dump() + "\n";
    if (i % 7 == 0) lines += "\n";
  }
  return lines;
}

// A large file of lines that every rank has a part of, packed ones, plain ones, copies across all, links, other kinds.
void make_corpus(const std::filesystem::path& text) {
  write_text(text / "a.jsonl", lines_of(0, 300));
  write_text(text / "b.jsonl.zst", testing::packed("zstd", lines_of(250, 330)));
  write_text(text / "c.json", lines_of(330, 340));
  for (int i = 0; i < 40; ++i) write_text(text / "plain" / (std::to_string(i) + ".txt"), document(320 + i));
  write_text(text / "plain" / "long.txt", document(1) + document(2) + document(3));
  write_text(text / "plain" / "near.txt", document(345) + "one line more\n");
  write_text(text / "empty.txt", "");
  write_text(text / "x.lz4", "\x04\x22\x4D\x18");
  std::filesystem::create_symlink("a.jsonl", text / "z.jsonl");
}

std::map<std::string, std::string> files_in(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).string()] = read_text(entry.path());
  }
  return files;
}

class CorpusRanks : public ::testing::Test {
 protected:
  CorpusRanks() {
    make_corpus(folder / "text");
    options.corpus.inputs = {folder / "text"};
    options.vocabulary = 400;
    options.tokenizer_sample_bytes = 1 << 16;
    options.hold_out = 0.1;
    options.shard_tokens = 9000;
    options.batch_bytes = 9000;
  }
  std::map<std::string, std::string> built(int ranks, BuildHooks hooks = {quiet}) {
    options.out = folder / ("out" + std::to_string(ranks));
    on_ranks(ranks, [&](BuildRanks& self) {
      Workers workers(1);
      const CorpusBuildResult result = build_corpus(options, workers, hooks, self);
      EXPECT_EQ(result.read.documents, 300 + 80 + 10 + 42);
    });
    return files_in(options.out);
  }

  testing::TemporaryFolder folder;
  CorpusBuildOptions options;
};

TEST_F(CorpusRanks, BuildTheBytesOfOne) {
  options.curation.least_bytes = 462;
  const std::map<std::string, std::string> one = built(1);
  EXPECT_GT(one.size(), 8u) << "several shards";
  const Json corpus = parse_json(one.at("corpus.json"), "corpus.json");
  EXPECT_GT(corpus.at("exact_duplicates").count(), 50);
  EXPECT_GT(corpus.at("near_duplicates").count(), 0);
  EXPECT_GT(corpus.at("left_out").items().at(0).at("documents").count(), 5);
  for (const int ranks : {2, 4, 7}) EXPECT_EQ(built(ranks), one) << ranks << " ranks";
}

/// The same documents as each kind of input has them: its name and how it comes to be.
struct Kind {
  const char* name;
  std::function<void(const std::filesystem::path&)> make;
};

const std::string kFront = lines_of(0, 90), kMiddle = lines_of(90, 91), kBack = lines_of(91, 150);

const Kind kKinds[] = {
    {"plain",
     [](const auto& path) {
       for (int i = 0; i < 150; ++i) write_text(path / fmt::format("{:03}.txt", i), document(i));
     }},
    {"a.jsonl", [](const auto& path) { write_text(path, kFront + kMiddle + kBack); }},
    {"a.ndjson.gz", [](const auto& path) { write_text(path, testing::packed("gzip", kFront + kMiddle + kBack)); }},
    {"members.jsonl.gz",
     [](const auto& path) {
       write_text(path, testing::packed("gzip", kFront) + testing::packed("gzip", kMiddle + kBack));
     }},
    {"frames.jsonl.zst",
     [](const auto& path) {
       write_text(path,
                  testing::packed("zstd", kFront) + testing::packed("zstd", kMiddle) + testing::packed("zstd", kBack));
     }},
    {"a.json.xz", [](const auto& path) { write_text(path, testing::packed("xz", kFront + kMiddle + kBack)); }},
    {"a.jsonl.bz2", [](const auto& path) { write_text(path, testing::packed("bzip2", kFront + kMiddle + kBack)); }},
    {"pipe", [](const auto& path) { EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0); }},
};

TEST_F(CorpusRanks, EveryKindOfInputGivesTheSameShards) {
  std::map<std::string, std::string> expected;
  for (const Kind& kind : kKinds) {
    kind.make(folder / kind.name);
    options.corpus.inputs = {folder / kind.name};
    for (const int ranks : {1, 2, 4}) {
      options.out = folder / fmt::format("{} of {}", kind.name, ranks);
      std::thread writer([&] {
        if (is_pipe(folder / kind.name)) {
          std::ofstream(folder / kind.name, std::ios::binary)
              << testing::packed("zstd", kFront) << testing::packed("zstd", kMiddle + kBack);
        }
      });
      on_ranks(ranks, [&](BuildRanks& self) {
        Workers workers(1);
        build_corpus(options, workers, {quiet}, self);
      });
      writer.join();
      std::map<std::string, std::string> shards = files_in(options.out);
      for (const char* told : {"held_out.txt", "corpus.json"}) shards.erase(told);  // they name and count the input
      if (expected.empty()) expected = shards;
      EXPECT_EQ(shards, expected) << kind.name << " on " << ranks << " ranks";
    }
  }
  EXPECT_GT(expected.size(), 4u);
}

std::string conversation(int number) {
  return fmt::format(
      R"({{"messages": [{{"role": "user", "content": "what is {0}?"}}, {{"role": "assistant", "content": "it is {0}"}}, )"
      R"({{"role": "user", "content": "sure?"}}, {{"role": "assistant", "content": "yes, {0}"}}]}})",
      number * 37 % 900);
}

// What of a conversation is learned travels with it, through spools and through stops.
TEST_F(CorpusRanks, BuildMaskedShards) {
  std::filesystem::remove_all(folder / "text");
  std::string lines;
  for (int i = 0; i < 432; ++i) lines += conversation(i) + "\n";
  write_text(folder / "text" / "chats.jsonl", lines);
  options.tokenizer = TokenizerChoice::bytes;
  options.corpus.fields.chat = ChatFormat::plain;
  options.near_threshold = 2;
  const std::map<std::string, std::string> one = built(1);
  EXPECT_GT(one.size(), 5u) << "several shards";
  EXPECT_TRUE(Shard::open((options.out / "train" / "train-00000.h5").string()).info().masked());
  for (const int ranks : {2, 4}) EXPECT_EQ(built(ranks), one) << ranks << " ranks";
  int stops = 0;
  for (int batches = 2; batches < 60; batches += 3) {
    std::atomic<int> left = batches;
    try {
      EXPECT_EQ(built(3, {.say = quiet, .progress = nullptr, .stop = [&] { return --left == 0; }}), one);
      break;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ExitCode::preempted) << error.what();
      ++stops;
    }
  }
  EXPECT_GT(stops, 3);
  EXPECT_TRUE(std::filesystem::exists(folder / "out3"));
}

// Too few documents to hold out whole ones: the border lies with one rank.
TEST_F(CorpusRanks, FindTheEndOfTheTextTogether) {
  std::filesystem::remove_all(folder / "text");
  write_text(folder / "text" / "a.jsonl", lines_of(0, 432));
  options.hold_out = 1e-4;
  options.tokenizer = TokenizerChoice::bytes;
  const std::map<std::string, std::string> one = built(1);
  EXPECT_NE(one.at("held_out.txt").find("from byte"), std::string::npos);
  for (const int ranks : {2, 3}) EXPECT_EQ(built(ranks), one) << ranks << " ranks";
}

// Text up to a limit is one rank's.
TEST_F(CorpusRanks, KeepALimitOfBytes) {
  options.corpus.limit_bytes = 150'000;
  options.out = folder / "one";
  Workers workers(1);
  build_corpus(options, workers, {quiet});
  options.out = folder / "three";
  on_ranks(3, [&](BuildRanks& self) {
    Workers own(1);
    build_corpus(options, own, {quiet}, self);
  });
  EXPECT_EQ(files_in(folder / "three"), files_in(folder / "one"));
}

// Stopped at every other batch in turn, and gone on with each time.
TEST_F(CorpusRanks, AStoppedBuildGoesOnToTheSameBytes) {
  const std::map<std::string, std::string> one = built(1);
  int stops = 0;
  int trained = 0;
  int left_training = 0;
  bool knew_the_input = false;
  bool encoded = false;
  const auto say = [&](const std::string& said) {
    trained += said.starts_with("training a tokenizer") ? 1 : 0;
    knew_the_input = knew_the_input || said.find("has read") != std::string::npos;
    encoded = encoded || said.find("stand in finished ones") != std::string::npos;
  };
  for (int batches = 2; batches < 200; batches += 3) {
    std::atomic<int> left = batches;
    try {
      EXPECT_EQ(built(3, {.say = say, .stop = [&] { return --left == 0; }}), one);
      break;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ExitCode::preempted) << error.what();
      ++stops;
      left_training += std::string(error.what()).starts_with("stopped while training a tokenizer") ? 1 : 0;
    }
  }
  EXPECT_GT(stops, 4);
  EXPECT_LT(stops, 60) << "it never came to its end";
  EXPECT_EQ(trained, 1 + left_training);
  EXPECT_TRUE(knew_the_input);
  EXPECT_TRUE(encoded);
}

TEST_F(CorpusRanks, ABuildOfOtherRanksIsRefused) {
  std::atomic<int> left = 8;
  EXPECT_THROW(built(2, {.say = quiet, .stop = [&] { return --left == 0; }}), Error);
  options.out = folder / "out2";
  try {
    on_ranks(3, [&](BuildRanks& self) {
      Workers workers(1);
      build_corpus(options, workers, {quiet}, self);
    });
    FAIL() << "ranks read other parts than they had read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("ranks: 2"), std::string::npos) << error.what();
  }
}

// Bad lines are judged by all that were read; the first is named.
TEST_F(CorpusRanks, JudgeBadLinesTogether) {
  write_text(folder / "text" / "a.jsonl", lines_of(0, 300) + "bad\nworse\n");
  options.corpus.skip_bad = 2.1 / 392;
  const auto built_on_two = [&] {
    options.out = folder / "out";
    on_ranks(2, [&](BuildRanks& self) {
      Workers workers(1);
      EXPECT_EQ(build_corpus(options, workers, {quiet}, self).read.bad_lines, 2);
    });
  };
  built_on_two();
  std::filesystem::remove_all(folder / "out");
  options.corpus.skip_bad = 1.9 / 392;
  EXPECT_THROW(built_on_two(), Error);
}

}  // namespace
}  // namespace shoestring
