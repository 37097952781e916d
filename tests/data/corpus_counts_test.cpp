#include <gtest/gtest.h>

#include "data/corpus.h"
#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::write_text;

CorpusCounts counts_of(CorpusOptions options) {
  CorpusReader reader(std::move(options));
  Document document;
  while (reader.next(document)) {
  }
  return reader.counts();
}

std::string why(const CorpusCounts& counts, const LineFields& fields) {
  try {
    check_fields(counts, fields);
  } catch (const Error& error) {
    return error.code() == ExitCode::bad_data ? error.what() : "another code";
  }
  return "";
}

// A mistyped name among several would leave its text out of every document.
TEST(CorpusCounts, AFieldThatNoLineHasIsRefused) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.jsonl",
             "{\"title\": \"T\", \"text\": \"A\"}\n{\"text\": \"B\"}\n{\"title\": \"U\", \"lang\": \"de\"}\n");
  const LineFields sound{{"title", "text"}, {}, {}};
  const CorpusCounts counts = counts_of({.inputs = {folder.path()}, .extensions = {}, .fields = sound});
  EXPECT_EQ(counts.lines_without, (std::map<std::string, std::int64_t>{{"text", 1}, {"title", 1}}));
  EXPECT_EQ(why(counts, sound), "");
  EXPECT_EQ(taken_as_it_is(counts).at(1), "1 line without text under \"title\": the other fields alone are taken");

  const LineFields mistyped{{"titel", "text"}, {}, {}};
  const CorpusCounts bad =
      counts_of({.inputs = {folder.path()}, .extensions = {}, .fields = mistyped, .skip_bad = 0.5});
  EXPECT_EQ(bad.bad_lines, 1);
  EXPECT_EQ(why(bad, mistyped),
            "--field titel,text: none of the 2 lines (or rows) has text under \"titel\"; mend its name, or leave it "
            "out");
  EXPECT_EQ(why({}, mistyped), "") << "plain text has no fields";
}

// Files and lines of another encoding are trained on as bytes: not without a word.
TEST(CorpusCounts, DocumentsThatAreNotUtf8AreCounted) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.txt",
             "gr\xC3\xBC\xC3\x9F"
             "e\n");
  write_text(folder / "b.txt",
             "gr\xFC\xDF"
             "e\n");
  write_text(folder / "c.txt", "na\xEFve\n");
  const CorpusCounts counts = counts_of({.inputs = {folder.path()}, .extensions = {}});
  EXPECT_EQ(counts.documents, 3);
  EXPECT_EQ(counts.not_utf8, 2);
  EXPECT_EQ(counts.first_not_utf8, (folder / "b.txt").string());
  const std::vector<std::string> told = taken_as_it_is(counts);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_TRUE(told[0].starts_with("2 documents with bytes that are not UTF-8, the first: ")) << told[0];
  EXPECT_TRUE(taken_as_it_is({}).empty());
  CorpusCounts both;
  both.add({});
  both.add(counts);
  both.add(counts);
  EXPECT_EQ(both.not_utf8, 4);
  EXPECT_EQ(both.first_not_utf8, counts.first_not_utf8);
}

// A file without line ends is cut between characters.
TEST(CorpusCounts, ACutDocumentEndsWithACharacter) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "\xE2\x82\xAC";  // three bytes each
  write_text(folder / "a.txt", "x" + text);
  for (const std::int64_t most : {std::int64_t{4}, std::int64_t{5}, std::int64_t{6}, std::int64_t{64}}) {
    const CorpusCounts counts = counts_of({.inputs = {folder.path()}, .extensions = {}, .document_bytes = most});
    EXPECT_EQ(counts.not_utf8, 0) << most;
    EXPECT_EQ(counts.bytes, 301) << most;
  }
  write_text(folder / "a.txt", std::string(40, '\x80'));
  EXPECT_EQ(counts_of({.inputs = {folder.path()}, .extensions = {}, .document_bytes = 1}).bytes, 40);
}

// The endings hold for all that a folder has; a file of lines that is itself an input was asked for.
TEST(CorpusCounts, EndingsLeaveOutLinesOfJsonInFolders) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.txt", "text");
  write_text(folder / "b.jsonl", "{\"text\": \"line\"}\n");
  const CorpusCounts counts = counts_of({.inputs = {folder.path()}, .extensions = {"txt"}});
  EXPECT_EQ(counts.documents, 1);
  EXPECT_EQ(counts.other_extensions, 1);
  EXPECT_EQ(passed_over(counts).at(0), "1 file of another ending: --extensions leaves them out");
  EXPECT_EQ(counts_of({.inputs = {folder.path()}, .extensions = {"txt", "jsonl"}}).documents, 2);
  EXPECT_EQ(counts_of({.inputs = {folder / "b.jsonl"}, .extensions = {"txt"}}).documents, 1);
}

}  // namespace
}  // namespace shoestring
