#include "data/piped_input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <future>
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

std::atomic<int> g_signals = 0;

// Builds from `input` while this thread gets a signal a hundred times a second, until 30 of them have been counted;
// `rescue` ends a build that does not notice. Handlers are installed as the program's are: system calls go on.
ExitCode build_under_signals(const std::filesystem::path& input, const testing::TemporaryFolder& folder,
                             const std::function<void()>& rescue, std::string& said) {
  constexpr int kEnough = 30;
  constexpr int kDeaf = 1000;
  g_signals = 0;
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) { ++g_signals; };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &action, &before);
  std::atomic<bool> over = false;
  std::thread sender([&, builder = ::pthread_self()] {
    for (int sent = 0; !over; ++sent) {
      ::pthread_kill(builder, SIGUSR1);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (sent != kDeaf) continue;
      ADD_FAILURE() << "the build does not notice";
      rescue();
    }
  });
  Workers workers(1);
  ExitCode code = ExitCode::done;
  try {
    build_corpus(
        options_for(input, folder / "out"), workers,
        {.say = [&](const std::string& line) { said += line + "\n"; }, .stop = [] { return g_signals >= kEnough; }});
  } catch (const Error& error) {
    code = error.code();
    said += error.what();
  }
  over = true;
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
  return code;
}

TEST(PipedInput, IsLeftOnASignalWhileStandardInputIsSilent) {
  const testing::TemporaryFolder folder;
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const int kept = ::dup(STDIN_FILENO);
  ::dup2(ends[0], STDIN_FILENO);
  std::string said;
  EXPECT_EQ(build_under_signals(
                "-", folder, [&] { ::close(ends[1]); }, said),
            ExitCode::preempted)
      << said;
  EXPECT_FALSE(std::filesystem::exists(folder / "out.partial")) << "there is nothing to go on with";
  EXPECT_NE(said.find("run the same command again"), std::string::npos) << said;
  ::dup2(kept, STDIN_FILENO);
  for (const int file : {kept, ends[0], ends[1]}) ::close(file);
}

TEST(PipedInput, IsLeftOnASignalWhileAPipeHasNoWriter) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string said;
  const auto write_nothing = [&] { ::close(::open(pipe.c_str(), O_WRONLY | O_NONBLOCK)); };
  EXPECT_EQ(build_under_signals(pipe, folder, write_nothing, said), ExitCode::preempted) << said;
  const std::size_t at = said.find("waiting for a writer of " + pipe.string());
  ASSERT_NE(at, std::string::npos) << said;
  EXPECT_EQ(said.find("waiting for a writer", at + 1), std::string::npos) << said;
}

TEST(PipedInput, WaitsForItsWriter) {
  const testing::TemporaryFolder folder;
  const std::filesystem::path pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::promise<void> waits;
  std::thread writer([&] {
    const auto told = waits.get_future().wait_for(std::chrono::seconds(10));
    EXPECT_EQ(told, std::future_status::ready);
    std::ofstream(pipe, std::ios::binary) << lines(300);
  });
  Workers workers(1);
  const CorpusBuildResult result =
      build_corpus(options_for(pipe, folder / "out"), workers, {[&](const std::string& line) {
                     if (line.starts_with("waiting for a writer of ")) waits.set_value();
                   }});
  writer.join();
  EXPECT_EQ(result.read.lines, 300);
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
