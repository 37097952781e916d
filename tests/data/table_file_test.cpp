#include "data/table_file.h"

#include <gtest/gtest.h>

#include "data/corpus.h"
#include "data/file_kind.h"
#include "kernels/base/check.h"
#include "tests/data/table_fixture.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::bytes_of;
using testing::write_text;

struct Kind {
  const char* name;
  std::string_view content;
};
void PrintTo(const Kind& kind, std::ostream* to) { *to << kind.name; }

const Kind kKinds[] = {
    {"a.parquet", testing::kParquet}, {"a.arrow", testing::kArrowFile}, {"b.arrow", testing::kArrowStream}};

constexpr const char* kLines =
    "{\"text\": \"one\", \"meta\": {\"lang\": \"en\", \"n\": 1}, \"keep\": true}\n"
    "{\"text\": \"zwei\", \"meta\": {\"lang\": \"de\", \"n\": 2}, \"keep\": false}\n"
    "{\"text\": \"three\\nlines\", \"meta\": {\"lang\": \"en\", \"n\": 3}, \"keep\": true}\n";

std::vector<std::string> texts_of(const std::filesystem::path& file, const LineFields& fields) {
  CorpusReader reader({.inputs = {file}, .extensions = {}, .fields = fields});
  std::vector<std::string> all;
  Document document;
  while (reader.next(document)) {
    EXPECT_TRUE(document.name.starts_with(file.string() + ":")) << document.name;
    all.push_back(document.text);
  }
  return all;
}

class Tables : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (!TableFile::unavailable().empty()) GTEST_SKIP() << "built without Apache Arrow: " << TableFile::unavailable();
    write_text(folder / GetParam().name, bytes_of(GetParam().content));
    write_text(folder / "a.jsonl", kLines);
  }
  testing::TemporaryFolder folder;
};

// One corpus, whatever it is stored as: whichever columns are asked for.
TEST_P(Tables, RowsAreWhatLinesOfJsonWouldBe) {
  const LineFields all[] = {{},
                            {.text = {"meta.lang", "text"}, .where = {}},
                            {.text = {"text"}, .where = {{"meta.lang", "en"}}},
                            {.text = {"text"}, .where = {{"keep", "false"}}},
                            {.text = {"text", "no.such"}, .where = {{"meta.n", "3"}}}};
  for (const LineFields& fields : all) {
    const std::vector<std::string> expected = texts_of(folder / "a.jsonl", fields);
    EXPECT_FALSE(expected.empty());
    EXPECT_EQ(texts_of(folder / GetParam().name, fields), expected);
  }
}

TEST_P(Tables, AColumnThatIsNotThereIsNamedWithThoseThatAre) {
  try {
    texts_of(folder / GetParam().name, {.text = {"content"}, .where = {}});
    FAIL() << "rows without a column";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const char* part : {"content", "text, meta, keep"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

// Rows whose column is no text are bad, as lines are.
TEST_P(Tables, BadRowsAreRefusedOrCounted) {
  const LineFields numbers{.text = {"meta.n"}, .where = {}};
  EXPECT_THROW(texts_of(folder / GetParam().name, numbers), Error);
  CorpusReader reader({.inputs = {folder / GetParam().name}, .extensions = {}, .fields = numbers, .skip_bad = 1});
  Document document;
  EXPECT_FALSE(reader.next(document));
  EXPECT_EQ(reader.counts().bad_lines, 3);
}

// Cut anywhere, and every byte changed: rows or an Error, nothing else.
TEST_P(Tables, DamageIsAnError) {
  const std::string sound = bytes_of(GetParam().content);
  int refused = 0;
  const auto read = [&](const std::string& bytes) {
    write_text(folder / GetParam().name, bytes);
    try {
      CorpusReader reader({.inputs = {folder / GetParam().name}, .extensions = {}, .skip_bad = 1});
      Document document;
      while (reader.next(document)) EXPECT_LE(document.text.size(), sound.size());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      ++refused;
    }
  };
  for (std::size_t cut = 16; cut + 16 < sound.size(); cut += 7) read(sound.substr(0, cut));
  EXPECT_GT(refused, 30);
  for (std::size_t at = 8; at < sound.size(); at += 3) {
    std::string changed = sound;
    changed[at] = static_cast<char>(changed[at] ^ 0x55);
    read(changed);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Tables, ::testing::ValuesIn(kKinds),
                         [](const auto& kind) { return std::string(1, kind.param.name[0]) + (kind.param.name + 2); });

// A footer that claims to be longer than the file, or to lie before it.
TEST(TableFile, AFooterOutsideTheFileIsRefused) {
  if (!TableFile::unavailable().empty()) GTEST_SKIP() << "built without Apache Arrow: " << TableFile::unavailable();
  const testing::TemporaryFolder folder;
  std::string bytes = bytes_of(testing::kParquet);
  for (const char* length : {"\xFF\xFF\xFF\x7F", "\xFF\xFF\xFF\xFF", "\x00\x10\x00\x00"}) {
    bytes.replace(bytes.size() - 8, 4, std::string(length, 4));
    write_text(folder / "a.parquet", bytes);
    try {
      texts_of(folder / "a.parquet", {});
      FAIL() << "a footer of " << length;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find("a.parquet"), std::string::npos) << error.what();
    }
  }
}

// Where the library is not there, the corpus is told to shrink, and what would bring the rows in.
TEST(TableFile, AreKnownByTheirContent) {
  for (const Kind& kind : kKinds) {
    const std::string bytes = bytes_of(kind.content);
    EXPECT_TRUE(TableFile::begins(bytes)) << kind.name;
    EXPECT_NE(file_kind(bytes).remedy.find("Apache Arrow"), std::string_view::npos) << kind.name;
  }
  EXPECT_FALSE(TableFile::begins("PAR 1"));
  EXPECT_FALSE(TableFile::begins(""));
  EXPECT_FALSE(TableFile::begins("\xFF\xFF\xFF\xFF"));
}

}  // namespace
}  // namespace shoestring
