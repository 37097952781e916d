#include "data/build_journal.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

DocumentRecord record(int number) {
  const std::string text = "one two three four five six seven " + std::to_string(number);
  return {fingerprint(text), number % 2 == 1, static_cast<std::uint8_t>(number % 5)};
}

std::vector<DocumentRecord> records(int begin, int end) {
  std::vector<DocumentRecord> all;
  for (int i = begin; i < end; ++i) all.push_back(record(i));
  return all;
}

void expect_same(const DocumentRecord& a, const DocumentRecord& b) {
  EXPECT_EQ(a.left_out, b.left_out);
  EXPECT_EQ(a.fingerprint.bytes, b.fingerprint.bytes);
  EXPECT_EQ(a.fingerprint.content, b.fingerprint.content);
  EXPECT_EQ(a.fingerprint.minima, b.fingerprint.minima);
  EXPECT_EQ(a.fingerprint.short_text, b.fingerprint.short_text);
  EXPECT_EQ(a.held_out, b.held_out);
}

TEST(BuildJournal, GivesBackWhatAnEarlierBuildLeft) {
  const testing::TemporaryFolder folder;
  {
    BuildJournal journal(folder.path(), "seed: 1\n");
    EXPECT_FALSE(journal.any());
    EXPECT_TRUE(journal.next_known(5).empty());
    journal.append(records(0, 4));
    journal.append(records(4, 6));
    EXPECT_TRUE(journal.any());
  }
  BuildJournal journal(folder.path(), "seed: 1\n");
  EXPECT_EQ(journal.known(), 6);
  const std::vector<DocumentRecord> first = journal.next_known(4);
  ASSERT_EQ(first.size(), 4u);
  for (int i = 0; i < 4; ++i) expect_same(first[static_cast<std::size_t>(i)], record(i));
  journal.confirm(4, true);
  const std::vector<DocumentRecord> rest = journal.next_known(4);
  ASSERT_EQ(rest.size(), 2u);
  expect_same(rest[1], record(5));
}

TEST(BuildJournal, WhatChangedIsForgottenFromThereOn) {
  const testing::TemporaryFolder folder;
  { BuildJournal(folder.path(), "").append(records(0, 6)); }
  {
    BuildJournal journal(folder.path(), "");
    journal.next_known(3);
    journal.confirm(2, false);
    EXPECT_TRUE(journal.next_known(3).empty());
    journal.append(records(20, 21));
    EXPECT_FALSE(journal.first_pass_done({}));
  }
  BuildJournal journal(folder.path(), "");
  EXPECT_EQ(journal.known(), 3) << "cut where the input ends";
  expect_same(journal.next_known(9).at(2), record(20));
}

TEST(BuildJournal, TornAndDamagedRecordsEndWhatIsKnown) {
  const testing::TemporaryFolder folder;
  { BuildJournal(folder.path(), "").append(records(0, 5)); }
  const std::filesystem::path file = folder / "documents.journal";
  std::string bytes = testing::read_text(file);
  const std::size_t one = bytes.size() / 5;
  testing::write_text(file, bytes.substr(0, bytes.size() - 1));
  EXPECT_EQ(BuildJournal(folder.path(), "").next_known(9).size(), 4u);
  bytes[2 * one + 50] = static_cast<char>(bytes[2 * one + 50] ^ 1);
  testing::write_text(file, bytes);
  EXPECT_EQ(BuildJournal(folder.path(), "").next_known(9).size(), 2u);
}

TEST(BuildJournal, RefusesWhatWasAskedForOtherwiseAndSaysHow) {
  const testing::TemporaryFolder folder;
  { BuildJournal(folder.path(), "seed: 1\nsource: a\n").append(records(0, 1)); }
  try {
    BuildJournal journal(folder.path(), "seed: 2\nsource: a\n");
    FAIL() << "another build was gone on with";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("then seed: 1; now seed: 2"), std::string::npos) << error.what();
  }
  EXPECT_EQ(BuildJournal(folder.path(), "seed: 1\nsource: a\n").known(), 1);
}

FirstPassResult pass(std::uint64_t digest, std::int64_t documents) {
  FirstPassResult found;
  found.digest = digest;
  found.counts.documents = documents;
  found.counts.bytes = 12345;
  found.counts.kinds_of_file = {{"lz4", 2}, {"UTF-16", 1}};
  found.counts.first_bad = "a:1: \"no\"";
  found.counts.not_utf8 = 3;
  found.counts.first_not_utf8 = "b.txt";
  found.counts.lines_without = {{"title", 4}};
  found.lines_before = 99;
  return found;
}

TEST(BuildJournal, KnowsWhatTheFirstPassFound) {
  const testing::TemporaryFolder folder;
  const std::uint64_t large = 0xFEDCBA9876543210u;
  {
    BuildJournal journal(folder.path(), "");
    EXPECT_FALSE(journal.first_pass());
    journal.append(records(0, 6));
    EXPECT_FALSE(journal.first_pass_done(pass(large, 6)));
  }
  {
    BuildJournal journal(folder.path(), "");
    ASSERT_TRUE(journal.first_pass());
    EXPECT_EQ(*journal.first_pass(), pass(large, 6));
    EXPECT_EQ(BuildJournal::first_pass_of(folder.path(), 0), pass(large, 6));
    journal.confirm(journal.next_known(6).size(), true);
    EXPECT_TRUE(journal.first_pass_done(pass(large, 6)));
    EXPECT_FALSE(journal.first_pass_done(pass(8, 6)));
    const FingerprintRows rows = journal_fingerprints(folder.path(), 0);
    EXPECT_EQ(rows.count(), 6);
    EXPECT_EQ(rows[5].content, record(5).fingerprint.content);
    EXPECT_EQ(std::filesystem::file_size(folder / "documents.journal"), 6u * 160) << "160 bytes a document";
    journal.forget_first_pass();
  }
  BuildJournal journal(folder.path(), "");
  EXPECT_FALSE(journal.first_pass());
  EXPECT_EQ(journal.known(), 6);
  journal.remove();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

// A pass that is over counts for nothing where a record is damaged or missing.
TEST(BuildJournal, AFirstPassWithoutAllItsRecordsIsNone) {
  const testing::TemporaryFolder folder;
  {
    BuildJournal journal(folder.path(), "");
    journal.append(records(0, 6));
    journal.first_pass_done(pass(1, 6));
  }
  const std::filesystem::path file = folder / "documents.journal";
  const std::string sound = testing::read_text(file);
  std::string damaged = sound;
  damaged[sound.size() / 2] = static_cast<char>(damaged[sound.size() / 2] ^ 1);
  for (const std::string& bytes : {damaged, sound.substr(0, sound.size() - 1)}) {
    testing::write_text(file, bytes);
    EXPECT_FALSE(BuildJournal(folder.path(), "").first_pass());
  }
  testing::write_text(file, sound);
  EXPECT_TRUE(BuildJournal(folder.path(), "").first_pass());
}

TEST(BuildJournal, OfEachRankIsItsOwn) {
  const testing::TemporaryFolder folder;
  { BuildJournal(folder.path(), "").append(records(0, 2)); }
  { BuildJournal(folder.path(), "", 1).append(records(2, 5)); }
  EXPECT_EQ(BuildJournal(folder.path(), "").known(), 2);
  BuildJournal second(folder.path(), "", 1);
  EXPECT_EQ(second.known(), 3);
  expect_same(second.next_known(1).at(0), record(2));
}

}  // namespace
}  // namespace shoestring
