// What an unfinished build of shards has already found out, so that the same build goes on where it was.
//
// It lies in the build's private folder: build.json, what was asked for and, after the first pass, what that found;
// documents.journal, a record of 160 bytes a document in their order, in which duplicates are looked for too. Of
// several ranks each has its own (build.1.json, documents.1.journal ...).
//
// A build that was stopped in its first pass reads its input again and compares each document by a hash, but what costs
// time (fingerprints) is not done again; where a document is another than it was, everything from there on is
// forgotten. One that was stopped later does not read for the first pass again: the second compares.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/near_duplicates.h"
#include "data/working_file.h"

namespace shoestring {

/// What the first pass finds out about a document.
struct DocumentRecord {
  Fingerprint fingerprint;
  bool held_out = false;      ///< as HoldOut::draws says
  std::uint8_t left_out = 0;  ///< by which rule of curation; 0: by none
};

/// What the first pass finds out about the input.
struct FirstPassResult {
  std::uint64_t digest = 0;  ///< of all documents and their order
  CorpusCounts counts;
  std::int64_t lines_before = 0;  ///< CorpusPart's

  bool operator==(const FirstPassResult&) const = default;
};

class BuildJournal {
 public:
  static constexpr const char* kStateFile = "build.json";

  /// Takes up what an earlier build left in `folder`. `request` is all that decides what is built, "name: value" on
  /// each line; throws Error(usage) naming the lines that differ where the earlier build was asked for something else.
  BuildJournal(const std::filesystem::path& folder, const std::string& request, int rank = 0);

  /// Documents that an earlier build left and that were not cut off.
  std::int64_t known() const { return known_; }
  /// Whether there is anything to go on with.
  bool any() const { return known_ > 0 || at_ > 0; }

  /// The records of the next `count` documents, as far as they are known.
  std::vector<DocumentRecord> next_known(std::size_t count);
  /// The next `count` documents are as their records say. Those behind them are not known any more, if `all` is false.
  void confirm(std::size_t count, bool all);
  /// Of documents behind all known ones.
  void append(std::span<const DocumentRecord> records);

  /// What another rank's first pass found, which is over.
  static std::optional<FirstPassResult> first_pass_of(const std::filesystem::path& folder, int rank);
  /// What the first pass of an earlier build found, if it came to its end and all its records are sound.
  const std::optional<FirstPassResult>& first_pass() const { return done_; }
  /// The first pass is over. Whether an earlier build came so far, and found the same: then its tokenizer and finished
  /// shards are those of this one. Throws Error(io).
  bool first_pass_done(const FirstPassResult& found);
  /// The input is not what the first pass found: another begins.
  void forget_first_pass();

  /// Removes the journal's files: the build is complete.
  void remove();

 private:
  void write_state();
  bool all_sound() const;

  std::filesystem::path state_path_;
  WorkingFile file_;
  std::string request_;
  std::optional<FirstPassResult> done_;
  std::int64_t known_ = 0;
  std::int64_t at_ = 0;  // records confirmed or appended
};

/// The fingerprints of one rank's finished first pass, as they lie in its journal.
FingerprintRows journal_fingerprints(const std::filesystem::path& folder, int rank);

}  // namespace shoestring
