#include "data/shard.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <limits>
#include <numeric>
#include <thread>

#include "tests/data/shard_fixture.h"

// HDF5 1.10.8 itself loses memory when it refuses a damaged file; nothing of ours may.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5\n"; }

namespace shoestring {
namespace {

using namespace shoestring::testing;

std::vector<std::int32_t> flat(const Documents& documents) {
  std::vector<std::int32_t> tokens;
  for (const auto& document : documents) {
    for (const std::uint32_t id : document) tokens.push_back(static_cast<std::int32_t>(id));
    tokens.push_back(kEnd);
  }
  return tokens;
}

std::vector<std::int32_t> read_all(const Shard& shard) {
  std::vector<std::int32_t> tokens(shard.info().tokens);
  shard.read(0, tokens.size(), tokens.data());
  return tokens;
}

TEST(Shard, APipeAmongThemIsRefusedAndNotWaitedFor) {
  const ShardFolder folder;
  const std::string pipe = folder / "a.h5";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  try {
    Shard::open(pipe);
    FAIL() << "opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("a shard must be a regular file"), std::string::npos) << error.what();
  }
}

TEST(Shard, RoundTripOfBothWidthsAndWays) {
  const ShardFolder folder;
  for (const std::uint32_t vocabulary : {3u, 65536u, 65537u, 129280u}) {
    const Documents documents = make_documents(400, 300, vocabulary, vocabulary);
    const std::string path = folder / "a.h5";
    const ShardWriteResult written = write_shard(path, documents, vocabulary);
    const std::vector<std::int32_t> expected = flat(documents);
    for (const ShardIo io : {ShardIo::mmap, ShardIo::pread}) {
      for (const bool verify : {true, false}) {
        const Shard shard = Shard::open(path, {io, verify});
        EXPECT_EQ(shard.info().tokens, expected.size());
        EXPECT_EQ(shard.info().documents, documents.size());
        EXPECT_EQ(shard.info().text_bytes, 3 * (expected.size() - documents.size()));
        EXPECT_EQ(shard.info().token_bytes, vocabulary <= 65536 ? 2u : 4u);
        EXPECT_EQ(shard.info().tokenizer_hash, "test-tokenizer");
        EXPECT_EQ(shard.info().source, "test");
        EXPECT_EQ(shard.info().content_hash, written.content_hash);
        EXPECT_EQ(shard.info().file_bytes, written.file_bytes);
        EXPECT_EQ(shard.info().tokens_offset % 4096, 0u);
        EXPECT_EQ(read_all(shard), expected);
        const Random random(1, Purpose::test);
        for (std::uint64_t at = 0; at < 200; ++at) {
          const std::uint64_t begin = random.below(2 * at, expected.size());
          const std::uint64_t count =
              random.below(2 * at + 1, std::min<std::uint64_t>(5000, expected.size() - begin) + 1);
          std::vector<std::int32_t> part(count);
          shard.read(begin, count, part.data());
          ASSERT_TRUE(std::equal(part.begin(), part.end(), expected.begin() + static_cast<std::ptrdiff_t>(begin)));
        }
      }
    }
  }
}

TEST(Shard, SameContentIsTheSameFile) {
  const ShardFolder folder;
  const Documents documents = make_documents(50, 100, 500, 1);
  write_shard(folder / "a.h5", documents, 500);
  write_shard(folder / "b.h5", documents, 500);
  EXPECT_EQ(testing::file_bytes(folder / "a.h5"), testing::file_bytes(folder / "b.h5"));
}

TEST(Shard, MissingAndUnreadableFiles) {
  const ShardFolder folder;
  const Error missing = error_of([&] { Shard::open(folder / "none.h5"); });
  EXPECT_EQ(missing.code(), ExitCode::missing_input);
  EXPECT_NE(std::string(missing.what()).find("none.h5"), std::string::npos);
  EXPECT_EQ(error_of([&] { Shard::open(folder.path()); }).code(), ExitCode::bad_data);
  write_bytes(folder / "empty.h5", {});
  EXPECT_EQ(error_of([&] { Shard::open(folder / "empty.h5"); }).code(), ExitCode::bad_data);
  write_bytes(folder / "text.h5", std::vector<char>(5000, 'x'));
  EXPECT_EQ(error_of([&] { Shard::open(folder / "text.h5"); }).code(), ExitCode::bad_data);
}

/// What reading the whole shard gives: its tokens and document ends, or nothing when it is refused as bad data.
std::vector<std::int64_t> content_or_nothing(const std::string& path, ShardIo io) {
  try {
    const Shard shard = Shard::open(path, {io, true});
    const std::vector<std::int32_t> tokens = read_all(shard);
    std::vector<std::int64_t> content(tokens.begin(), tokens.end());
    for (const std::uint64_t end : shard.doc_ends()) content.push_back(static_cast<std::int64_t>(end));
    const ShardInfo& info = shard.info();
    for (const std::uint64_t value : {std::uint64_t{info.vocabulary_size}, std::uint64_t{info.end_of_document},
                                      info.text_bytes, info.content_hash}) {
      content.push_back(static_cast<std::int64_t>(value));
    }
    for (const char c : info.tokenizer_hash + "|" + info.source) content.push_back(c);
    return content;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    return {};
  }
}

// One flipped bit, or a word of zeros turned to ones, anywhere in the file: refused, or of no effect; never another
// content. Every byte of the metadata, a sample of the rest.
TEST(Shard, FlippedBitsAreNeverSilent) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  Documents documents = make_documents(300, 150, 1000, 3);
  documents.push_back({});
  documents.back().assign(500, 0);  // zeros, for the words that some checksums take for ones
  write_shard(path, documents, 1000);
  const std::vector<char> sound = testing::file_bytes(path);
  const std::vector<std::int64_t> expected = content_or_nothing(path, ShardIo::mmap);
  ASSERT_FALSE(expected.empty());
  const ShardInfo info = Shard::open(path).info();
  const auto in_data = [&](std::size_t at) {
    return at >= info.tokens_offset && at < info.tokens_offset + info.tokens * 2;
  };
  int refused = 0;
  int tried = 0;
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto open_before = open_files() + 1;
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t at, const char* bytes, std::streamsize count) {
    file.seekp(static_cast<std::streamoff>(at)).write(bytes, count).flush();
  };
  const auto try_damage = [&](std::size_t at, const std::string& bytes, bool must_refuse) {
    put(at, bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const auto content = content_or_nothing(path, tried % 2 == 0 ? ShardIo::mmap : ShardIo::pread);
    put(at, sound.data() + at, static_cast<std::streamsize>(bytes.size()));
    ++tried;
    refused += content.empty() ? 1 : 0;
    ASSERT_TRUE(content.empty() || (!must_refuse && content == expected)) << "byte " << at;
  };
  for (std::size_t at = 0; at < sound.size(); ++at) {
    const bool zero_page = !in_data(at) && sound[at] == 0 && at % 61 != 0;  // thin out the padding between pages
    if ((in_data(at) && at % 397 != 0) || zero_page) continue;
    try_damage(at, std::string(1, static_cast<char>(sound[at] ^ (1 << at % 8))), in_data(at));
  }
  for (std::size_t at = info.tokens_offset; at + 2 <= info.tokens_offset + info.tokens * 2; at += 2) {
    if (sound[at] == 0 && sound[at + 1] == 0 && at % 30 == 0) try_damage(at, "\xFF\xFF", true);
  }
  EXPECT_EQ(content_or_nothing(path, ShardIo::mmap), expected);
  EXPECT_EQ(open_files(), open_before);
  std::printf("  %d damaged files, %d refused, %d read as before\n", tried, refused, tried - refused);
}

TEST(Shard, CutOrExtendedFilesAreRefused) {
  const ShardFolder folder;
  write_shard(folder / "a.h5", make_documents(100, 100, 1000, 3), 1000);
  const std::vector<char> sound = testing::file_bytes(folder / "a.h5");
  for (const std::size_t keep :
       {sound.size() - 1, sound.size() / 2, std::size_t{4096}, std::size_t{100}, std::size_t{47}, std::size_t{1}}) {
    write_bytes(folder / "b.h5", {sound.begin(), sound.begin() + static_cast<std::ptrdiff_t>(keep)});
    const Error error = error_of([&] { Shard::open(folder / "b.h5"); });
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
  }
  std::vector<char> longer = sound;
  longer.push_back(0);
  write_bytes(folder / "b.h5", longer);
  EXPECT_EQ(error_of([&] { Shard::open(folder / "b.h5"); }).code(), ExitCode::bad_data);
}

TEST(Shard, BadBlockIsNamedAndOthersStayReadable) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  write_shard(path, Documents(40, std::vector<std::uint32_t>(5000, 7)), 1000);
  const ShardInfo info = Shard::open(path).info();
  ASSERT_EQ(info.token_blocks, 7u);
  std::vector<char> bytes = testing::file_bytes(path);
  const std::uint64_t byte = info.tokens_offset + 2 * info.block_bytes + 5;
  bytes[byte] = static_cast<char>(bytes[byte] ^ 4);
  write_bytes(path, bytes);
  for (const ShardIo io : {ShardIo::mmap, ShardIo::pread}) {
    const Shard shard = Shard::open(path, {io, true});
    std::vector<std::int32_t> out(100);
    shard.read(0, 100, out.data());
    shard.read(3 * info.block_bytes / 2, 100, out.data());
    const Error error = error_of([&] { shard.read(info.block_bytes + 3, 1, out.data()); });
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    const std::string text = error.what();
    EXPECT_NE(text.find(path), std::string::npos);
    EXPECT_NE(text.find("block 2"), std::string::npos) << text;
    EXPECT_NE(text.find(std::to_string(info.tokens_offset + 2 * info.block_bytes)), std::string::npos) << text;
    EXPECT_THROW(shard.read(info.block_bytes - 3, 10, out.data()), Error);  // a range that only ends in it
    EXPECT_THROW(shard.check_block(2), Error);
    shard.check_block(1);
  }
}

TEST(Shard, ThreadsReadAtOnce) {
  const ShardFolder folder;
  const Documents documents = make_documents(500, 400, 60000, 5);
  write_shard(folder / "a.h5", documents, 60000);
  const std::vector<std::int32_t> expected = flat(documents);
  for (const ShardIo io : {ShardIo::mmap, ShardIo::pread}) {
    const Shard shard = Shard::open(folder / "a.h5", {io, true});
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (std::uint64_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        const Random random(thread, Purpose::test);
        std::vector<std::int32_t> part(1000);
        for (std::uint64_t at = 0; at < 200; ++at) {
          const std::uint64_t begin = random.below(at, expected.size() - part.size());
          shard.read(begin, part.size(), part.data());
          if (!std::equal(part.begin(), part.end(), expected.begin() + static_cast<std::ptrdiff_t>(begin))) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
  }
}

TEST(Shard, ReadsOutsideAreOurBug) {
  const ShardFolder folder;
  write_shard(folder / "a.h5", {{5, 6, 7}}, 10);
  const Shard shard = Shard::open(folder / "a.h5");
  std::int32_t out[8];
  EXPECT_EQ(error_of([&] { shard.read(0, 5, out); }).code(), ExitCode::bug);
  EXPECT_EQ(error_of([&] { shard.read(5, 0, out); }).code(), ExitCode::bug);
  EXPECT_EQ(error_of([&] { shard.read(~std::uint64_t{0}, 2, out); }).code(), ExitCode::bug);
  shard.read(4, 0, out);
}

TEST(Shard, AMaskedOneSaysWhatIsLearned) {
  const ShardFolder folder;
  const std::string path = folder / "a.h5";
  const std::vector<std::uint32_t> document = {7, kEnd, 9};
  const std::vector<std::uint8_t> learned = {0, 1, 1};
  {
    ShardWriter writer(
        path, {.vocabulary_size = 100, .end_of_document = kEnd, .tokenizer_hash = "t", .source = "s", .masked = true});
    writer.append_masked(document, learned);
    writer.append_masked(std::vector<std::uint32_t>{8, kEnd}, std::vector<std::uint8_t>{0, 1});
    EXPECT_THROW(writer.append_masked(std::vector<std::uint32_t>{100}, std::vector<std::uint8_t>{1}), Error);
    EXPECT_THROW(writer.append(document), Error);
    writer.finish();
  }
  constexpr std::int32_t kRead = std::numeric_limits<std::int32_t>::min();
  for (const ShardIo io : {ShardIo::mmap, ShardIo::pread}) {
    for (const bool verify : {true, false}) {
      const Shard shard = Shard::open(path, {io, verify});
      EXPECT_TRUE(shard.info().masked());
      EXPECT_EQ(shard.info().token_bytes, 4u);
      EXPECT_EQ(read_all(shard), (std::vector<std::int32_t>{7, kEnd, 9, kEnd, 8, kEnd}));
      std::vector<std::int32_t> marked(6);
      shard.read_marked(0, 6, marked.data());
      EXPECT_EQ(marked, (std::vector<std::int32_t>{kRead | 7, kEnd, 9, kRead | std::int32_t{kEnd}, kRead | 8, kEnd}));
      EXPECT_EQ(shard.doc_ends()[0], 4u);
    }
  }
}

}  // namespace
}  // namespace shoestring
