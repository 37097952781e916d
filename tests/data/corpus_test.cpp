#include "data/corpus.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "kernels/base/check.h"
#include "tests/data/packed.h"
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
  EXPECT_EQ(counts.binary_files(), 1);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(counts.links, 1);
  EXPECT_EQ(counts.bytes, 11);
}

// Half a corpus must not be missing without a word.
TEST(Corpus, TellsEveryKindItPassesOver) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.txt", "some text");
  write_text(folder / "a.txt.lz4", "\x04\x22\x4D\x18 compressed");
  write_text(folder / "u.txt", std::string("\xFF\xFE"
                                           "a\0b\0",
                                           6));
  write_text(folder / "b.md", "other");
  write_text(folder / "empty.txt", "");
  write_text(folder / "x.jsonl", "{\"text\": \"\"}\n\n");
  std::filesystem::create_symlink("a.txt", folder / "l.txt");
  std::filesystem::create_symlink("nowhere", folder / "m.txt");
  ASSERT_EQ(::mkfifo((folder / "pipe.txt").c_str(), 0600), 0);
  CorpusCounts counts;
  EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {".txt", ".lz4"}}, &counts).size(), 1u);
  EXPECT_EQ(counts.links, 2);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(counts.other_extensions, 2) << "lines of JSON too";
  EXPECT_EQ(counts.special_files, 1);
  EXPECT_EQ(counts.kinds_of_file, (std::map<std::string, std::int64_t>{{"UTF-16", 1}, {"lz4", 1}}));
  const std::vector<std::string> told = passed_over(counts);
  ASSERT_EQ(told.size(), 6u);
  EXPECT_TRUE(told[0].starts_with("2 links:")) << told[0];
  EXPECT_EQ(told[1], "1 UTF-16 file: convert to UTF-8, for example with iconv");
  EXPECT_EQ(told[2], "1 lz4 file: unpack first");
  EXPECT_TRUE(passed_over({}).empty());
}

// Stores of blobs, as of data versioning and of model hubs, are folders of links whose names alone say what is what.
TEST(Corpus, AnInputIsWhatItsNameSays) {
  const testing::TemporaryFolder folder;
  write_text(folder / "blobs" / "0f1e", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  std::filesystem::create_directory(folder / "named");
  std::filesystem::create_symlink("../blobs/0f1e", folder / "named" / "x.jsonl");
  std::filesystem::create_directory_symlink("blobs", folder / "linked");
  const std::vector<Document> all = read_all({.inputs = {folder / "named" / "x.jsonl"}, .extensions = {".txt"}});
  ASSERT_EQ(all.size(), 2u);
  EXPECT_TRUE(all[1].name.ends_with("named/x.jsonl:2")) << all[1].name;
  EXPECT_EQ(read_all({.inputs = {folder / "linked"}, .extensions = {}}).size(), 1u) << "a folder given by a link";
  EXPECT_EQ(read_all({.inputs = {folder / "linked/"}, .extensions = {}}).size(), 1u);
}

// A whole corpus in one document, without a word, is what a name can do.
TEST(Corpus, DoubtsInputsThatTheirNamesMakePlainText) {
  const testing::TemporaryFolder folder;
  const std::string lines = "{\"text\": \"one\"}\n\n{\"text\": \"two\"}\n";
  const std::string others = "{\"content\": \"one\"}\n{\"content\": \"two\"}\n";
  const auto doubt = [&](const std::string& name, const std::string& content) -> std::string {
    write_text(folder / name, content);
    const std::vector<std::string> all = doubtful_inputs({.inputs = {folder / name}, .extensions = {}});
    EXPECT_LE(all.size(), 1u);
    return all.empty() ? "" : all.front();
  };
  const std::string as_lines = "its lines look like JSONL; name it .jsonl, or feed it through `-`";
  for (const std::string& content :
       {lines, others, lines.substr(0, 16), std::string("{\"text\": \"") + std::string(10'000, 'x') + "\"}\n"}) {
    EXPECT_EQ(doubt("blob", content), (folder / "blob").string() + ": taken as plain text, but " + as_lines);
  }
  std::filesystem::create_symlink("x.jsonl", folder / "plain.txt");
  EXPECT_NE(doubt("plain.txt", lines).find(as_lines), std::string::npos) << "the link's name, not what it leads to";
  EXPECT_EQ(doubt("x.jsonl", lines), "");
  EXPECT_NE(doubt("packed.gz", testing::packed("gzip", lines)).find(as_lines), std::string::npos);
  const std::string array = doubt("arr.json", "[\n {\"text\": \"one\"},\n {\"text\": \"two\"}\n]\n");
  EXPECT_NE(array.find("is one JSON array; write one object a line (`jq -c .[]`)"), std::string::npos) << array;
  const std::string field = doubt("c4.json", others);
  EXPECT_NE(field.find("without text under \"text\"; name the field that holds it: --field"), std::string::npos);
  EXPECT_EQ(doubt("c4.json", lines), "") << "is read as lines";
  for (const char* text : {"", "plain text\n", "[1, 2]\n", "[link](to)\n", "{\n \"text\": \"over many lines\"\n}\n",
                           "{\"a\": 1}\n", "{\"a\": 1}\nplain\n", "{ int a; }\n{ int b; }\n"}) {
    EXPECT_EQ(doubt("text", text), "") << text;
  }
  EXPECT_EQ(doubt("bin", lines + std::string("\0", 1)), "") << "is passed over";
  write_text(folder / "blob", lines);
  EXPECT_TRUE(doubtful_inputs({.inputs = {folder / "blob"}, .extensions = {".txt"}}).empty()) << "is passed over";
  EXPECT_TRUE(doubtful_inputs({.inputs = {folder.path()}, .extensions = {}}).empty()) << "a folder's files are its own";
  const std::vector<std::string> pipe = doubtful_inputs({.inputs = {folder / "c4.json"},
                                                         .extensions = {},
                                                         .fields = {{"body"}},
                                                         .piped = {{folder / "c4.json", "stdin"}}});
  ASSERT_EQ(pipe.size(), 1u);
  EXPECT_TRUE(pipe[0].starts_with("stdin: taken as plain text")) << pipe[0];
}

TEST(Corpus, SkipsBadLinesUpToTheShareAllowed) {
  const testing::TemporaryFolder folder;
  std::string text = "{\"text\": \"torn\n{\"txt\": 1}\n";
  for (int i = 0; i < 8; ++i) text += "{\"text\": \"good\"}\n";
  write_text(folder / "x.jsonl", text);
  CorpusCounts counts;
  CorpusOptions options{.inputs = {folder.path()}, .extensions = {}, .skip_bad = 0.2};
  EXPECT_EQ(read_all(options, &counts).size(), 8u);
  EXPECT_EQ(counts.bad_lines, 2);
  EXPECT_EQ(counts.lines, 10);
  options.skip_bad = 0.19;
  try {
    read_all(options);
    FAIL() << "more bad lines than allowed were skipped";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("2 of 10 lines"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("x.jsonl:1"), std::string::npos) << error.what();
  }
}

TEST(Corpus, SaysWhyAnInputIsNone) {
  const testing::TemporaryFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  write_text(folder / "x.jsonl", "\x04\x22\x4D\x18 compressed");
  const auto refusal = [&](const char* name) -> std::string {
    try {
      read_all({.inputs = {folder / name}, .extensions = {}});
    } catch (const Error& error) {
      return error.what();
    }
    return "taken";
  };
  EXPECT_NE(refusal("pipe").find("pipe: is a pipe"), std::string::npos) << refusal("pipe");
  EXPECT_NE(refusal("dangling").find("leads nowhere"), std::string::npos) << refusal("dangling");
  EXPECT_NE(refusal("x.jsonl").find("is lz4: unpack first"), std::string::npos) << refusal("x.jsonl");
}

TEST(Corpus, TakesTheExtensionsAskedForAndStopsAtTheLimit) {
  const testing::TemporaryFolder folder;
  for (const char* name : {"1.h", "2.txt", "3.h", "4.h"}) write_text(folder / name, "0123456789");
  EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {".h"}}).size(), 3u);
  for (const char* same : {".H", "h", "*.h", " *.h "})
    EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {same}}).size(), 3u) << same;
  EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {"2.txt", "3.h"}}).size(), 0u) << "names are no endings";
  EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {".h"}, .limit_bytes = 15}).size(), 2u);
}

TEST(Corpus, CutsLongFilesAtLineEndsWithoutLoss) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int line = 0; line < 1000; ++line) text += "line " + std::to_string(line) + "\n";
  write_text(folder / "long.txt", text);
  std::string joined;
  const std::vector<Document> parts = read_all({.inputs = {folder.path()}, .extensions = {}, .document_bytes = 256});
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
    EXPECT_NE(std::string(error.what()).find("--skip-bad"), std::string::npos) << "the way out: " << error.what();
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

// The corpus of a release: the same documents, whatever packs them.
TEST(Corpus, PackedFilesAreWhatTheyHold) {
  const std::string lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
  for (const Packing& packing : packings()) {
    SCOPED_TRACE(std::string(packing.name));
    const testing::TemporaryFolder folder;
    const std::string ending(packing.endings.substr(0, packing.endings.find(' ')));
    write_text(folder / ("a.jsonl" + ending), testing::packed(packing.name, lines));
    write_text(folder / ("b.json" + ending), testing::packed(packing.name, lines));  // as C4 names them
    write_text(folder / ("c.txt" + ending), testing::packed(packing.name, "plain"));
    write_text(folder / ("d.md" + ending), testing::packed(packing.name, "left out"));
    write_text(folder / "e.txt", testing::packed(packing.name, "named as if it were not packed"));
    write_text(folder / "f.txt", testing::packed(packing.name, std::string("bin\0ary", 7)));
    write_text(folder / "g.json", "{\n \"text\": \"over many lines\"\n}\n");
    CorpusCounts counts;
    const std::vector<Document> all = read_all({.inputs = {folder.path()}, .extensions = {".txt", ".jsonl"}}, &counts);
    std::vector<std::string> texts;
    for (const Document& document : all) texts.push_back(document.text);
    EXPECT_EQ(texts, (std::vector<std::string>{"one", "two", "plain", "named as if it were not packed"}));
    EXPECT_TRUE(all[1].name.ends_with("a.jsonl" + ending + ":2")) << all[1].name;
    EXPECT_EQ(counts.packed_files, 4);
    EXPECT_EQ(counts.binary_files(), 1);
    EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {".json"}}).size(), 3u);
    EXPECT_EQ(read_all({.inputs = {folder.path()}, .extensions = {ending}}).size(), 6u);
  }
}

TEST(Corpus, LinesAreChosenAndJoinedByTheirFields) {
  const testing::TemporaryFolder folder;
  write_text(folder / "a.ndjson",
             "{\"data\": {\"title\": \"T\", \"body\": \"B\"}, \"lang\": \"en\"}\n"
             "{\"data\": {\"title\": \"U\", \"body\": \"C\"}, \"lang\": \"de\"}\n"
             "{\"data\": {\"body\": \"D\"}, \"lang\": \"en\"}");
  CorpusCounts counts;
  const std::vector<Document> all = read_all(
      {.inputs = {folder.path()}, .extensions = {}, .fields = {{"data.title", "data.body"}, {field_filter("lang=en")}}},
      &counts);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].text, "T\n\nB");
  EXPECT_EQ(all[1].text, "D");
  EXPECT_EQ(counts.unwanted_lines, 1);
  EXPECT_EQ(passed_over(counts), (std::vector<std::string>{"1 line of JSONL: not as --where says"}));
}

// What of a damaged file comes before the damage must not pass for the whole of it.
TEST(Corpus, DamagedPackingEndsTheReading) {
  const testing::TemporaryFolder folder;
  const std::string whole = testing::packed("gzip", std::string(100000, 'x') + "\n");
  write_text(folder / "a.txt.gz", whole.substr(0, whole.size() / 2));
  try {
    read_all({.inputs = {folder.path()}, .extensions = {}});
    FAIL() << "half a file was taken for a whole one";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("a.txt.gz"), std::string::npos) << error.what();
  }
}

// Much of one source and little of another, whatever there is of each.
TEST(Corpus, TakesAsMuchOfEachInputAsItMay) {
  const testing::TemporaryFolder folder;
  for (const char* name : {"a/1", "a/2", "a/3", "c/1"}) write_text(folder / name, std::string(100, name[0]));
  write_text(folder / "b.jsonl", "{\"text\": \"12345\"}\n{\"text\": \"67890\"}\n");
  const std::vector<std::filesystem::path> inputs = {folder / "a", folder / "b.jsonl", folder / "c"};
  const auto given = [&](std::int64_t limit) {
    std::string all;
    for (const Document& document : read_all({.inputs = inputs, .extensions = {}, .input_limit_bytes = limit})) {
      all += document.text.substr(0, 1);
    }
    return all;
  };
  EXPECT_EQ(given(0), "aaa16c");
  EXPECT_EQ(given(101), "aa16c");
  EXPECT_EQ(given(100), "a16c");
  EXPECT_EQ(given(5), "a1c");
}

// Lines made to take memory or stack: refused by name, line and reason, whatever else of the line is asked for.
TEST(Corpus, LinesBeyondAllMeasureAreRefused) {
  const testing::TemporaryFolder folder;
  const std::string good = "{\"text\": \"good\"}\n";
  const std::string deep = std::string(10'000, '[') + std::string(10'000, ']');
  write_text(folder / "deep.jsonl", good + "{\"x\": " + deep + ", \"text\": \"t\"}\n");
  write_text(
      folder / "object.jsonl", good + [] {
        std::string nested;
        for (int i = 0; i < 10'000; ++i) nested += "{\"a\":";
        return nested + "1" + std::string(10'000, '}') + "\n";
      }());
  write_text(folder / "long.jsonl", good + "{\"text\": \"" + std::string(std::size_t{70} << 20, 'a') + "\"}\n");
  const LineFields filtered{.text = {"text"}, .where = {{"lang", "en"}}};
  for (const auto& [name, fields] : {std::pair<const char*, LineFields>{"deep.jsonl", filtered},
                                     {"object.jsonl", filtered},
                                     {"object.jsonl", LineFields{}},
                                     {"long.jsonl", LineFields{}}}) {
    CorpusReader reader({.inputs = {folder / name}, .extensions = {}, .fields = fields});
    try {
      Document document;
      while (reader.next(document)) EXPECT_EQ(document.text, "good");
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::bad_data);
      EXPECT_NE(std::string(error.what()).find(std::string(name) + ":2"), std::string::npos) << error.what();
      EXPECT_LT(std::string(error.what()).size(), 1000u);
    }
  }
  // Where only the text is asked for, no tree is made of the rest, and its depth is nobody's business.
  EXPECT_EQ(read_all({.inputs = {folder / "deep.jsonl"}, .extensions = {}}).at(1).text, "t");
}

// Parts hold every document once and in order, wherever their borders fall; of a file of lines each has its own.
TEST(Corpus, PartsTogetherAreTheWhole) {
  const testing::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines += "{\"text\": \"line " + std::to_string(i * i) + "\"}\n" + (i % 5 == 0 ? "\n" : "");
  write_text(folder / "a.jsonl", lines);
  write_text(folder / "b.txt", std::string(500, 'b'));
  write_text(folder / "c.jsonl.gz", testing::packed("gzip", lines + "{\"text\": \"last\"}"));
  write_text(folder / "d.txt", "");
  std::filesystem::create_symlink("b.txt", folder / "e.txt");
  CorpusCounts whole;
  const std::vector<Document> expected = read_all({.inputs = {folder.path()}, .extensions = {}}, &whole);
  ASSERT_EQ(expected.size(), 82u);
  for (int count = 2; count < 60; count += 3) {
    std::vector<Document> all;
    CorpusCounts counts;
    std::int64_t before = 0;
    int with_lines = 0;
    for (int index = 0; index < count; ++index) {
      CorpusReader reader({.inputs = {folder.path()}, .extensions = {}, .part = {index, count, before}});
      Document document;
      const std::size_t first = all.size();
      while (reader.next(document)) all.push_back(document);
      with_lines += all.size() > first ? 1 : 0;
      counts.add(reader.counts());
      before = reader.lines_across().lines;
    }
    ASSERT_EQ(all.size(), expected.size()) << count << " parts";
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(all[i].text, expected[i].text) << count << " parts";
      ASSERT_EQ(all[i].name, expected[i].name) << count << " parts";
    }
    EXPECT_EQ(counts, whole) << count << " parts";
    EXPECT_GE(with_lines, std::min(count, 3));
  }
}

}  // namespace
}  // namespace shoestring
