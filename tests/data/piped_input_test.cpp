#include "data/piped_input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "data/shard_report.h"
#include "kernels/base/check.h"
#include "tests/data/packed.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::write_text;

std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += "{\"text\": \"line " + std::to_string(i * i) + " of number " + std::to_string(i * 7919) + " \\n end\"}\n";
  }
  return text;
}

CorpusBuildOptions options_for(const std::filesystem::path& input, const std::filesystem::path& out) {
  CorpusBuildOptions options;
  options.corpus.inputs = {input};
  options.out = out;
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0.2;
  options.shard_tokens = 2000;
  return options;
}

// Builds from a named pipe into which `content` is written meanwhile.
CorpusBuildResult build_from_pipe(const testing::TemporaryFolder& folder, const std::string& content,
                                  const std::filesystem::path& out) {
  const std::filesystem::path pipe = folder / "pipe";
  EXPECT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] { std::ofstream(pipe, std::ios::binary) << content; });
  Workers workers(1);
  try {
    const CorpusBuildResult result = build_corpus(options_for(pipe, out), workers, {[](const std::string&) {}});
    writer.join();
    std::filesystem::remove(pipe);
    return result;
  } catch (...) {
    writer.join();
    std::filesystem::remove(pipe);
    throw;
  }
}

std::string shards_in(const std::filesystem::path& out) {
  std::string all;
  for (const char* split : {"train", "validation"}) {
    for (const std::string& shard : list_shards((out / split).string())) {
      all += std::filesystem::path(shard).filename().string() + read_text(shard);
    }
  }
  return all;
}

TEST(PipedInput, GivesTheShardsOfTheFile) {
  const testing::TemporaryFolder folder;
  const std::string text = lines(300);
  write_text(folder / "a.jsonl", text);
  Workers workers(1);
  build_corpus(options_for(folder / "a.jsonl", folder / "file"), workers, {[](const std::string&) {}});
  const std::string expected = shards_in(folder / "file");
  EXPECT_EQ(build_from_pipe(folder, text, folder / "plain").read.lines, 300);
  EXPECT_EQ(shards_in(folder / "plain"), expected);
  build_from_pipe(folder, testing::packed("zstd", text), folder / "packed");
  EXPECT_EQ(shards_in(folder / "packed"), expected);
  EXPECT_NE(read_text(folder / "packed" / "held_out.txt").find("/pipe:"), std::string::npos);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "packed")) {
    EXPECT_EQ(entry.path().string().find("pipe."), std::string::npos) << entry.path();
  }
}

// The writer went away in the middle of a line, or of packed data: nothing that looks whole is left.
TEST(PipedInput, ThatEndsEarlyIsRefused) {
  const testing::TemporaryFolder folder;
  const std::string text = lines(100);
  const std::string packed = testing::packed("gzip", text);
  for (const std::string& cut : {text.substr(0, text.size() - 10), packed.substr(0, packed.size() / 2)}) {
    try {
      build_from_pipe(folder, cut, folder / "out");
      FAIL() << "shards of a part";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
      EXPECT_NE(std::string(error.what()).find("pipe"), std::string::npos) << error.what();
    }
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
    std::filesystem::remove_all(folder / "out.partial");
  }
}

TEST(PipedInput, StandardInputStandsOnceOnly) {
  const testing::TemporaryFolder folder;
  const int kept = ::dup(STDIN_FILENO);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  CorpusOptions corpus{.inputs = {"-", "-"}, .extensions = {}};
  CorpusOptions named = corpus;
  name_pipes(named, folder.path());
  EXPECT_THROW(copy_pipes(corpus, named, {}), Error);
  ::dup2(kept, STDIN_FILENO);
  ::close(kept);
  ::close(nothing);
}

}  // namespace
}  // namespace shoestring
