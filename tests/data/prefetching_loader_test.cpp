#include "data/prefetching_loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#include "tests/data/held_storage.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

class PrefetchingLoaderTest : public ::testing::Test {
 protected:
  PrefetchingLoaderTest() {
    write_shard(folder_ / "a.h5", make_documents(300, 100, 1000, 1), 1000);
    LoaderOptions options;
    options.sources = {{"a", {folder_ / "a.h5"}, 1.0}};
    options.sequence = 128;
    loader_ = std::make_unique<Loader>(options);
  }
  /// `count` batches of 3 samples from sample `first`.
  static std::function<std::optional<SampleRange>()> ranges(std::int64_t first, int count) {
    return [first, count, given = 0]() mutable -> std::optional<SampleRange> {
      if (given == count) return std::nullopt;
      return SampleRange{first + 3 * given++, 3};
    };
  }
  ShardFolder folder_;
  std::unique_ptr<Loader> loader_;
};

TEST_F(PrefetchingLoaderTest, DeliversTheSameAtAnyDepth) {
  for (const int depth : {0, 1, 2, 8, 100}) {
    PrefetchingLoader prefetching(*loader_, ranges(6, 50), depth);
    for (int batch = 0; batch < 50; ++batch) {
      const Batch* got = prefetching.next();
      ASSERT_NE(got, nullptr);
      const Batch expected = loader_->fetch({6 + 3 * batch, 3});
      EXPECT_EQ(got->first_sample, 6 + 3 * batch);
      EXPECT_EQ(got->inputs, expected.inputs);
      EXPECT_EQ(got->targets, expected.targets);
      EXPECT_EQ(got->segment_start, expected.segment_start);
      EXPECT_EQ(got->trained_tokens, expected.trained_tokens);
    }
    EXPECT_EQ(prefetching.next(), nullptr);
    EXPECT_EQ(prefetching.next(), nullptr);
    EXPECT_GE(prefetching.wait_seconds(), 0);
  }
}

TEST_F(PrefetchingLoaderTest, AbandonedWithoutWaiting) {
  for (const int depth : {0, 1, 8}) {
    PrefetchingLoader prefetching(*loader_, ranges(0, 1000000), depth);
    prefetching.next();
  }
}

TEST_F(PrefetchingLoaderTest, FaultsComeInTheirTurn) {
  for (const int depth : {0, 1, 8}) {
    const auto faulty = [calls = 0]() mutable -> std::optional<SampleRange> {
      if (++calls == 4) fail(ExitCode::io, "the disk went away");
      return SampleRange{calls, 1};
    };
    PrefetchingLoader prefetching(*loader_, faulty, depth);
    for (int batch = 0; batch < 3; ++batch) ASSERT_NE(prefetching.next(), nullptr);
    EXPECT_EQ(error_of([&] { prefetching.next(); }).code(), ExitCode::io);
    EXPECT_EQ(prefetching.next(), nullptr);
  }
}

// Each of forty batches takes 5 ms to make, at the least: most are waited for, however busy the machine is. What the
// consumer does in between is no wait.
TEST_F(PrefetchingLoaderTest, WaitIsMeasured) {
  const auto slow = [calls = 0]() mutable -> std::optional<SampleRange> {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return SampleRange{calls++, 1};
  };
  PrefetchingLoader prefetching(*loader_, slow, 2);
  std::chrono::duration<double> within{};
  for (int batch = 0; batch < 40; ++batch) {
    if (batch % 10 == 9) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto begin = std::chrono::steady_clock::now();
    prefetching.next();
    within += std::chrono::steady_clock::now() - begin;
  }
  EXPECT_GT(prefetching.wait_seconds(), 0.01);
  EXPECT_LE(prefetching.wait_seconds(), within.count());
}

/// Two sources on a storage of 50 MB/s that takes 10 ms to open a file, in its own time.
class SlowStorage : public ::testing::Test {
 protected:
  SlowStorage() {
    for (const char* name : {"a", "b"}) {
      write_shard(folder_ / (name + std::string(".h5")), make_documents(300, 100, 1000, *name), 1000);
    }
    held_.open_seconds = 0.01;
    held_.bytes_per_second = 50e6;
  }
  std::unique_ptr<Loader> loader() {
    LoaderOptions options;
    options.sources = {{"a", {folder_ / "a.h5"}, 1}, {"b", {folder_ / "b.h5"}, 3}};
    options.sequence = 128;
    options.io = ShardIo::pread;
    options.storage = &held_;
    return std::make_unique<Loader>(options);
  }
  static std::function<std::optional<SampleRange>()> singles(std::int64_t count) {
    return [count, next = std::int64_t{0}]() mutable {
      return next < count ? std::optional(SampleRange{next++, 1}) : std::nullopt;
    };
  }
  ShardFolder folder_;
  HeldStorage held_;
};

// Without reading ahead every second of the storage is waited for, and each shard is charged its own.
TEST_F(SlowStorage, WaitsAreThoseOfTheShardsThatCausedThem) {
  const auto loader = SlowStorage::loader();
  const double opened = held_.seconds();
  EXPECT_GE(opened, 0.02);
  std::vector<std::string> lines;
  PrefetchingLoader batches(*loader, singles(40), 0, make_thread,
                            {.waits = {}, .late = [&](const std::string& line) { lines.push_back(line); }});
  while (batches.next() != nullptr) continue;
  const DataReading reading = batches.reading();
  EXPECT_NEAR(reading.wait_seconds, held_.seconds() - opened, 1e-6);
  EXPECT_NEAR(reading.storage_seconds, reading.wait_seconds, 1e-6);
  EXPECT_GT(reading.storage_bytes, 0);
  EXPECT_EQ(reading.copy_bytes, 0);
  ASSERT_EQ(reading.late.size(), 2u);
  EXPECT_NEAR(reading.late[0].seconds + reading.late[1].seconds, reading.wait_seconds, 1e-6);
  EXPECT_EQ(reading.late[0].path, folder_ / "b.h5");
  EXPECT_TRUE(lines.empty()) << "none came to a second";
}

TEST_F(SlowStorage, AShardThatIsLateIsNamedOnceForEachDoubling) {
  held_.bytes_per_second = 10e3;
  const auto loader = SlowStorage::loader();
  std::vector<std::string> lines;
  PrefetchingLoader batches(*loader, singles(40), 0, make_thread,
                            {.waits = {}, .late = [&](const std::string& line) { lines.push_back(line); }});
  while (batches.next() != nullptr) continue;
  ASSERT_GE(lines.size(), 2u);
  EXPECT_LE(lines.size(), 12u);
  EXPECT_NE(lines[0].find(".h5"), std::string::npos) << lines[0];
  EXPECT_NE(lines[0].find("MB/s"), std::string::npos) << lines[0];
}

// The storage hears of what comes in the order in which it will be read, and of a bounded part of it.
TEST_F(SlowStorage, HearsOfWhatWillBeRead) {
  const auto loader = SlowStorage::loader();
  {
    PrefetchingLoader batches(*loader, singles(1000000), 2);
    for (int i = 0; i < 30; ++i) ASSERT_NE(batches.next(), nullptr);
  }
  const HeldStorage::Asked asked = held_.asked();
  std::int64_t ahead = 1;  // the first was read before anything could be asked for
  for (; held_.asked().size() < 2 * asked.size(); ++ahead) loader->read_ahead({ahead, 1});
  const HeldStorage::Asked all = held_.asked();
  EXPECT_TRUE(std::equal(asked.begin(), asked.end(), all.begin() + static_cast<std::ptrdiff_t>(asked.size())));
  EXPECT_GT(ahead, 30);
  EXPECT_LE(ahead, 33 + static_cast<std::int64_t>(PrefetchingLoader::kReadAheadRanges) + 1);
}

TEST_F(PrefetchingLoaderTest, AThreadThatCannotBeMadeNamesTheLimits) {
  const ThreadMaker refuse = [](const std::function<void()>&) -> std::thread {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  };
  const Error error = error_of([&] { const PrefetchingLoader prefetching(*loader_, ranges(0, 1), 2, refuse); });
  EXPECT_EQ(error.code(), ExitCode::io);
  EXPECT_NE(std::string(error.what()).find("ulimit -u"), std::string::npos) << error.what();
  PrefetchingLoader none(*loader_, ranges(0, 1), 0, refuse);  // asks for no thread
  EXPECT_NE(none.next(), nullptr);
}

}  // namespace
}  // namespace shoestring
