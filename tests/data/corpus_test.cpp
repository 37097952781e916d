#include "data/corpus.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::write_text;

std::vector<Document> read_all(CorpusOptions options, CorpusCounts* counts = nullptr) {
  CorpusReader reader(std::move(options));
  std::vector<Document> all;
  Document document;
  while (reader.next(document)) all.push_back(document);
  if (counts != nullptr) *counts = reader.counts();
  return all;
}

TEST(Corpus, WalksInNameOrderAndPassesOverWhatIsNotText) {
  const testing::TemporaryFolder folder;
  write_text(folder / "b.h", "second");
  write_text(folder / "a/z.h", "first");
  write_text(folder / "c.bin", std::string("bin\0ary", 7));
  write_text(folder / "empty.h", "");
  std::filesystem::create_symlink(folder / "b.h", folder / "d.h");
  CorpusCounts counts;
  const std::vector<Document> all = read_all({.inputs = {folder.path()}, .extensions = {}}, &counts);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].text, "first");
  EXPECT_EQ(all[1].text, "second");
  EXPECT_EQ(counts.binary_files, 1);
  EXPECT_EQ(counts.bytes, 11);
}

TEST(Corpus, TakesTheExtensionsAskedForAndStopsAtTheLimit) {
  const testing::TemporaryFolder folder;
  for (const char* name : {"1.h", "2.txt", "3.h", "4.h"}) write_text(folder / name, "0123456789");
  EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {".h"}}).size(), 3u);
  EXPECT_EQ(
      read_all({.inputs = {folder.path()}, .extensions = {".h"}, .jsonl_field = "text", .limit_bytes = 15}).size(), 2u);
}

TEST(Corpus, CutsLongFilesAtLineEndsWithoutLoss) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int line = 0; line < 1000; ++line) text += "line " + std::to_string(line) + "\n";
  write_text(folder / "long.txt", text);
  std::string joined;
  const std::vector<Document> parts =
      read_all({.inputs = {folder.path()}, .extensions = {}, .jsonl_field = "text", .document_bytes = 256});
  for (const Document& part : parts) {
    EXPECT_LE(part.text.size(), 256u);
    EXPECT_EQ(part.text.back(), '\n');
    joined += part.text;
  }
  EXPECT_EQ(joined, text);
  EXPECT_GT(parts.size(), 30u);
}

TEST(Corpus, ReadsJsonLines) {
  const testing::TemporaryFolder folder;
  write_text(folder / "x.jsonl", "{\"text\": \"one\\nline\"}\n\n{\"text\": \"two\", \"id\": 3}\n");
  const std::vector<Document> all = read_all({.inputs = {folder / "x.jsonl"}, .extensions = {}});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].text, "one\nline");
  EXPECT_TRUE(all[1].name.ends_with("x.jsonl:3"));
  write_text(folder / "X.JSONL", "{\"text\": \"three\"}\n");
  EXPECT_EQ(read_all({.inputs = {folder / "X.JSONL"}, .extensions = {}}).at(0).text, "three");
}

TEST(Corpus, LinesOfAnyLengthArriveWhole) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (const std::size_t length : {65534u, 65535u, 65536u, 200000u, 1u}) {
    text += "{\"text\": \"" + std::string(length, 'x') + "\"}\n";
    text += std::string("{\"text\": \"\\u0000 after\"}\n");
  }
  text += "{\"text\": \"no line end\"}";
  write_text(folder / "x.jsonl", text);
  const std::vector<Document> all = read_all({.inputs = {folder / "x.jsonl"}, .extensions = {}});
  ASSERT_EQ(all.size(), 11u);
  EXPECT_EQ(all[0].text.size(), 65534u);
  EXPECT_EQ(all[6].text.size(), 200000u);
  EXPECT_EQ(all[7].text, std::string("\0 after", 7));
  EXPECT_EQ(all[10].text, "no line end");
}

// Thousands of short files are held at a time; each must take the memory of its text, not of the longest file allowed.
TEST(Corpus, AShortFileComesWithLittleMemory) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.h", "int a;\n");
  const std::vector<Document> all = read_all({.inputs = {folder.path()}, .extensions = {}});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_LT(all[0].text.capacity(), 100u);
}

// The memory of this process is a regular file whose first page cannot be read.
TEST(Corpus, AReadErrorIsNotTheEndOfAFile) {
  try {
    read_all({.inputs = {"/proc/self/mem"}, .extensions = {}});
    FAIL() << "a file that cannot be read was taken for an empty one";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("/mem: reading it failed"), std::string::npos) << error.what();
  }
}

TEST(Corpus, NamesTheBadLineAndTheMissingInput) {
  const testing::TemporaryFolder folder;
  write_text(folder / "x.jsonl", "{\"text\": \"one\"}\n{\"txt\": 1}\n");
  try {
    read_all({.inputs = {folder.path()}, .extensions = {}});
    FAIL() << "a line without the field was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("x.jsonl:2"), std::string::npos) << error.what();
  }
  write_text(folder / "x.jsonl", "{\"text\": \"\\ud800\"}\n");  // half of a pair
  try {
    read_all({.inputs = {folder.path()}, .extensions = {}});
    FAIL() << "a line that is not JSON was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("surrogate"), std::string::npos) << error.what();
  }
  std::filesystem::create_symlink("loop", folder / "loop");
  for (const char* name : {"absent", "loop"}) {
    try {
      CorpusReader({.inputs = {folder / name}, .extensions = {}});
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::missing_input);
    }
  }
}

}  // namespace
}  // namespace shoestring
