// Which documents of a corpus repeat earlier ones: exactly, or nearly.
//
// Exact: equal 128-bit content hashes. Near: MinHash over 5-word shingles (Broder, "On the resemblance and containment
// of documents", 1997): 64 minima, of which 16 bits each are kept (Li and Konig, "b-Bit Minwise Hashing", 2010), in 16
// bands of 4; documents that agree in a band are compared by all 64, and dropped from an estimated Jaccard similarity
// of 0.8 on. The first document of a group stays.
//
// Memory stays bounded whatever the corpus: what a document may meet others by, its content and its bands, are 272
// bytes of keys that are sorted on disk (sorted_pairs.h), those that are equal stand together, and fingerprints are
// read where they lie. Of several ranks each owns a range of the keys' hashes, whoever wrote them, so that the verdicts
// are those of one.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "data/build_ranks.h"
#include "data/sorted_pairs.h"
#include "kernels/base/file.h"

namespace shoestring {

/// What is remembered of a document, in memory as in a file.
struct Fingerprint {
  static constexpr int kMinima = 64;
  std::array<std::uint64_t, 2> content{};  ///< XXH3-128 of the text
  std::array<std::uint16_t, kMinima> minima{};
  std::uint32_t bytes = 0;       ///< of the text
  std::uint32_t short_text = 0;  ///< 1: fewer than kShingleWords words, compared exactly only
};

Fingerprint fingerprint(std::string_view text);
/// The part of it that says which text it is.
std::array<std::uint64_t, 2> content_of(std::string_view text);
/// Share of equal minima: estimates the Jaccard similarity of the shingle sets.
double similarity(const Fingerprint& a, const Fingerprint& b);

/// Fingerprints as they lie in a file: one at the front of each record.
class FingerprintRows {
 public:
  FingerprintRows(std::filesystem::path path, std::int64_t record_bytes);
  std::int64_t count() const { return count_; }
  /// Throws Error(io).
  Fingerprint operator[](std::int64_t number) const;

 private:
  std::filesystem::path path_;
  FileHandle file_;
  std::int64_t record_bytes_;
  std::int64_t count_;
};

class DuplicateFinder {
 public:
  /// Files go to `folder`, which all ranks see; they are removed with it.
  DuplicateFinder(const std::filesystem::path& folder, BuildRanks& ranks);

  /// The next document of this rank.
  void add(const Fingerprint& document);
  /// The next document, which is left out whatever it repeats, and which none repeats.
  void pass() { ++documents_; }

  /// Is told of the documents of this rank that repeat others, in their order, of some several times: the last holds.
  using Tell = std::function<void(std::int64_t document, bool exact)>;
  /// After the last: of the ranks' documents, in order, all but the first of a group repeat. `rows`: the fingerprints
  /// of every rank's documents, those of passed ones included. `tick`: what is done now and then meanwhile; may throw.
  void finish(const std::vector<FingerprintRows>& rows, double near_threshold, const Tell& tell,
              const std::function<void()>& tick);

 private:
  static constexpr int kBands = 16;
  void judge(SortedPairs keys, const std::vector<FingerprintRows>& rows, double near_threshold,
             const std::function<void()>& tick);
  std::vector<SortedPairs::Source> files_of_all(const char* name, bool numbers_through) const;

  std::filesystem::path folder_;
  BuildRanks& ranks_;
  std::int64_t documents_ = 0;
  PairSorter keys_;                  // hash; band and document of this rank
  PairSorter found_;                 // document of all ranks; 1: an exact copy
  std::vector<std::int64_t> first_;  // document of each rank, and one past the last
};

}  // namespace shoestring
