#include "data/build_journal.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

DocumentRecord record(int number) {
  const std::string text = "one two three four five six seven " + std::to_string(number);
  return {static_cast<std::uint64_t>(number), fingerprint(text), number % 2 == 1};
}

std::vector<DocumentRecord> records(int begin, int end) {
  std::vector<DocumentRecord> all;
  for (int i = begin; i < end; ++i) all.push_back(record(i));
  return all;
}

void expect_same(const DocumentRecord& a, const DocumentRecord& b) {
  EXPECT_EQ(a.text_hash, b.text_hash);
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
    EXPECT_FALSE(journal.first_pass_done(7));
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

TEST(BuildJournal, KnowsWhetherTheFirstPassWasTheSame) {
  const testing::TemporaryFolder folder;
  { EXPECT_FALSE(BuildJournal(folder.path(), "").first_pass_done(7)); }
  { EXPECT_TRUE(BuildJournal(folder.path(), "").first_pass_done(7)); }
  { EXPECT_FALSE(BuildJournal(folder.path(), "").first_pass_done(8)); }
  BuildJournal(folder.path(), "").remove();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace shoestring
