#include "data/curation.h"

#include <gtest/gtest.h>

#include <map>

#include "data/corpus_build.h"
#include "data/curation_presets.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::write_text;

// Prose that no rule of either preset minds, no five words of it twice; every number gives another.
std::string prose(int number) {
  const char* const nouns[] = {"river",   "castle",  "garden",   "letter",  "winter",  "planet", "engine",
                               "orchard", "harbour", "mountain", "village", "teacher", "candle"};
  const char* const verbs[] = {"crosses", "reminds", "follows", "carries", "answers", "remembers", "surrounds"};
  std::string text;
  unsigned state = static_cast<unsigned>(number) * 2654435761u + 12345u;
  const auto next = [&](unsigned most) {
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % most;
  };
  const auto noun = [&] { return nouns[next(13)] + std::to_string(next(30000)); };
  for (int line = 0; line < 12; ++line) {
    text += "The " + noun() + " " + verbs[next(7)] + " that " + noun() + " with a " + noun() + " and " +
            verbs[next(7)] + " one " + noun() + ".\n";
  }
  return text;
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string broken(const std::vector<std::string>& presets, const std::string& text) {
  const Curation curation({.presets = presets});
  const std::uint8_t rule = curation.broken_rule(text);
  return rule == 0 ? "" : curation.rules().at(rule - 1u).name;
}

TEST(Curation, GopherRulesEachFindTheirOwn) {
  EXPECT_EQ(broken({"gopher"}, prose(1)), "");
  const std::string long_word(60, 'x');
  const std::map<std::string, std::string> cases = {
      {"gopher: words", "Only a few words."},
      {"gopher: mean length of a word", prose(1) + repeated(" " + long_word, 40)},
      {"gopher: hashes or ellipses a word", prose(1) + repeated("# ", 40)},
      {"gopher: words with a letter", prose(1) + repeated(" 123 456", 30)},
      {"gopher: repeated lines", prose(1) + repeated("A line.\n", 10)},
      {"gopher: characters in repeated lines", prose(1) + prose(2).substr(0, 420) + "\n" + prose(2).substr(0, 420)},
  };
  for (const auto& [rule, text] : cases) EXPECT_EQ(broken({"gopher"}, text), rule);
  std::string bullets;
  std::string open;
  std::string foreign;
  for (int i = 0; i < 30; ++i) {
    bullets += "- the entry of list number" + std::to_string(i * i) + " and more\n";
    open += "the entry of list number" + std::to_string(i * i) + " and more" + (i % 2 == 0 ? "...\n" : "\n");
    foreign +=
        "mot" + std::to_string(i) + " suivant" + std::to_string(i * 3) + " encore" + std::to_string(i * 7) + "\n";
  }
  EXPECT_EQ(broken({"gopher"}, bullets), "gopher: lines that begin with a bullet");
  EXPECT_EQ(broken({"gopher"}, open), "gopher: lines that end with an ellipsis");
  EXPECT_EQ(broken({"gopher"}, foreign), "gopher: of the, be, to, of, and, that, have, with");
}

TEST(Curation, GopherFindsRepeatedRunsOfWords) {
  const std::string phrase = "buy cheap watches now ";
  std::string text;
  for (int i = 0; i < 12; ++i) text += phrase + "the word" + std::to_string(i) + " of day" + std::to_string(i) + "\n";
  EXPECT_EQ(broken({"gopher"}, text), "gopher: characters in the most frequent 2-gram");
  std::string longer = prose(3);
  for (char& c : longer) c = c == '\n' ? ' ' : c;
  const std::string part = longer.substr(0, 260);
  EXPECT_EQ(broken({"gopher"}, longer + "then " + part + " end"), "gopher: characters in repeated 5-grams");
}

TEST(Curation, C4RulesEachFindTheirOwn) {
  EXPECT_EQ(broken({"c4"}, prose(1)), "");
  EXPECT_EQ(broken({"c4"}, prose(1) + "Lorem Ipsum dolor."), "c4: lorem ipsum");
  EXPECT_EQ(broken({"c4"}, prose(1) + "if (x) { y(); }"), "c4: curly brackets");
  EXPECT_EQ(broken({"c4"}, "This is a line of seven words.\nThis is another line of words.\nToo short.\n"),
            "c4: sentences on lines it keeps");
  EXPECT_EQ(broken({"c4"}, repeated("Please enable Javascript to read all of this page.\n", 5)),
            "c4: sentences on lines it keeps");
  EXPECT_EQ(broken({"c4"}, repeated("a line that does not end with a full stop\n", 9)),
            "c4: sentences on lines it keeps");
}

TEST(Curation, SharedRunsOfThirteenWordsAreFound) {
  const testing::TemporaryFolder folder;
  write_text(folder / "test.jsonl",
             "{\"text\": \"One two three four five six seven eight nine ten eleven twelve thirteen fourteen\"}\n");
  const Curation curation({.decontaminate = {folder / "test.jsonl"}});
  const std::string from_two = "two THREE four, five six seven (eight) nine-ten eleven\ntwelve thirteen fourteen";
  EXPECT_EQ(curation.broken_rule("before " + from_two + " behind"), 1);
  EXPECT_EQ(curation.broken_rule("before two three four five six seven eight nine ten eleven twelve thirteen"), 0);
  EXPECT_EQ(curation.broken_rule(""), 0);
  EXPECT_THROW(Curation({.decontaminate = {folder / "none"}}), Error);
}

TEST(Curation, UnknownNamesAreRefusedWithThoseThereAre) {
  EXPECT_THROW(Curation({.presets = {"gofer"}}), Error);
  try {
    Curation({.scripts = {"latin", "klingon"}});
    FAIL() << "a script that is none";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("cyrillic"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(CurationOptions{}.any());
  EXPECT_TRUE(Curation({}).rules().empty());
}

// A corpus made for it: how many of each kind went in is what corpus.json says came out.
TEST(Curation, CountsAreExactInABuild) {
  const testing::TemporaryFolder folder;
  const auto put = [&](const std::string& kind, int count, const auto& text) {
    for (int i = 0; i < count; ++i) write_text(folder / "text" / (kind + std::to_string(i)), text(i));
  };
  put("good", 50, [](int i) { return prose(i); });
  put("copy", 3, [](int i) { return prose(i); });
  put("short", 4, [](int i) { return "Tiny text number " + std::to_string(i); });
  put("long", 2, [](int i) { return prose(1000 + i) + std::string(20'000, 'x'); });
  put("russian", 5, [](int i) { return repeated("\xD0\xB9\xD0\xBA\xD0\xBB\xD0\xBC ", 300) + std::to_string(i); });
  put("echo", 6, [](int i) { return prose(2000 + i) + repeated("Click here to read all of it.\n", 20); });
  put("lorem", 7, [](int i) { return prose(3000 + i) + "lorem ipsum"; });
  put("leaked", 8, [](int i) { return prose(4000 + i) + prose(9999).substr(0, 200); });
  write_text(folder / "evaluation.txt", prose(9999));
  CorpusBuildOptions options;
  options.corpus.inputs = {folder / "text"};
  options.out = folder / "out";
  options.tokenizer = TokenizerChoice::bytes;
  options.hold_out = 0;  // of so few documents a part of one would be
  options.curation = {.presets = {"gopher", "c4"},
                      .least_bytes = 100,
                      .most_bytes = 20'000,
                      .repeated_lines = 0.5,
                      .scripts = {"latin"},
                      .decontaminate = {folder / "evaluation.txt"}};
  Workers workers(1);
  std::string said;
  const CorpusBuildResult result =
      build_corpus(options, workers, {[&](const std::string& line) { said += line + "\n"; }});
  std::map<std::string, std::int64_t> counts;
  const Json corpus = parse_json(read_text(options.out / "corpus.json"), "corpus.json");
  for (const Json& rule : corpus.at("left_out").items()) {
    if (rule.at("documents").count() > 0) {
      counts[rule.at("rule").text() + ", " + rule.at("limit").text()] = rule.at("documents").count();
    }
  }
  EXPECT_EQ(counts, (std::map<std::string, std::int64_t>{{"bytes, at least 100", 4},
                                                         {"bytes, at most 20000", 2},
                                                         {"letters of latin, more than 0.5", 5},
                                                         {"repeated lines, at most 0.5", 6},
                                                         {"c4: lorem ipsum, none", 7},
                                                         {"13 words in a row of the evaluation texts, none", 8}}));
  EXPECT_EQ(result.exact_duplicates, 3);
  EXPECT_EQ(result.near_duplicates, 0);
  EXPECT_EQ(result.train_documents + result.validation_documents, 50);
  EXPECT_NE(said.find("left out: 8 documents"), std::string::npos) << said;
  EXPECT_NE(read_text(options.out / "corpus.json").find("Raffel et al. 2020"), std::string::npos);
}

}  // namespace
}  // namespace shoestring
