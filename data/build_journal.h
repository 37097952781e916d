// What an unfinished build of shards has already found out, so that the same build goes on where it was.
//
// It lies in the build's private folder: build.json, what was asked for; documents.journal, one record a document in
// their order. A build that goes on reads its input again and compares each document by a hash, but what costs time
// (fingerprints, training a tokenizer, encoding what stands in finished shards) is not done again. Where a document is
// another than it was, everything from there on is forgotten.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/near_duplicates.h"
#include "kernels/base/file.h"

namespace shoestring {

/// What the first pass finds out about a document.
struct DocumentRecord {
  std::uint64_t text_hash = 0;  ///< XXH3-64
  Fingerprint fingerprint;
  bool held_out = false;  ///< as HoldOut::draws says
};

class BuildJournal {
 public:
  static constexpr const char* kStateFile = "build.json";

  /// Takes up what an earlier build left in `folder`. `request` is all that decides what is built, "name: value" on
  /// each line; throws Error(usage) naming the lines that differ where the earlier build was asked for something else.
  BuildJournal(std::filesystem::path folder, const std::string& request);

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

  /// The first pass is over and has this digest. Whether an earlier build came so far, with the same: then its
  /// tokenizer and finished shards are those of this one. Throws Error(io).
  bool first_pass_done(std::uint64_t digest);

  /// Removes the journal's files: the build is complete.
  void remove();

 private:
  void write_state(const std::string& digest) const;

  std::filesystem::path folder_;
  std::string request_;
  std::string digest_;  // of an earlier build's first pass; empty: it did not come to its end
  FileHandle file_;
  std::int64_t known_ = 0;
  std::int64_t at_ = 0;  // records confirmed or appended
};

}  // namespace shoestring
