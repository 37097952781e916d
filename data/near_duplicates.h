// Which documents of a corpus repeat earlier ones: exactly, or nearly.
//
// Exact: equal 128-bit content hashes. Near: MinHash over 5-word shingles (Broder, "On the resemblance and containment
// of documents", 1997): 64 minima, of which 16 bits each are kept (Li and Konig, "b-Bit Minwise Hashing", 2010), in 16
// bands of 4; documents that agree in a band are compared by all 64, and dropped from an estimated Jaccard similarity
// of 0.8 on. The first document of a group stays.
//
// Memory stays bounded whatever the corpus: band keys go to files in the folder of the build, and one of 64 partitions
// of them is sorted in memory at a time, 4.3 bytes a document of the whole corpus; fingerprints are read where they
// lie. What stays in memory is one byte per document of this rank. Of several ranks each owns every size()-th
// partition, whoever wrote its keys, so that the verdicts are those of one.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "data/build_ranks.h"

namespace shoestring {

/// What is remembered of a document, in memory as on disk.
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

/// Fingerprints as they lie in a file: the first of `count`, and bytes from one to the next.
struct FingerprintRows {
  const std::byte* first = nullptr;
  std::size_t stride = 0;
  std::int64_t count = 0;
};

class DuplicateFinder {
 public:
  /// Files go to `folder`, which all ranks see; they are removed at the end.
  DuplicateFinder(std::filesystem::path folder, BuildRanks& ranks);
  ~DuplicateFinder();
  DuplicateFinder(const DuplicateFinder&) = delete;
  DuplicateFinder& operator=(const DuplicateFinder&) = delete;

  enum class Verdict : std::uint8_t { keep, exact_duplicate, near_duplicate, left_out };
  /// The next document of this rank.
  void add(const Fingerprint& document);
  /// The next document, which is left out whatever it repeats, and which none repeats.
  void pass();

  /// After the last: the verdict on every document of this rank, which are the ranks' in order. `rows`: the
  /// fingerprints of every rank's documents, those of passed ones included.
  std::vector<Verdict> finish(const std::vector<FingerprintRows>& rows, double near_threshold = 0.8);

 private:
  static constexpr int kPartitions = 64;
  static constexpr int kBands = 16;
  struct Key;
  struct Found;
  std::filesystem::path keys_path(int rank, int partition) const;
  std::filesystem::path found_path(int rank) const;
  void flush(int partition);
  std::vector<Key> read_partition(int partition) const;
  void judge(const std::vector<Key>& keys, const std::vector<FingerprintRows>& rows, double near_threshold,
             std::vector<Found>& found) const;
  void take_over(std::vector<Verdict>& verdicts) const;
  void remove_files() noexcept;

  std::filesystem::path folder_;
  BuildRanks& ranks_;
  std::array<int, kPartitions> partitions_{};
  std::array<std::vector<Key>, kPartitions> pending_;
  std::vector<Verdict> verdicts_;
  std::vector<std::int64_t> first_;  // document of each rank, and one past the last
};

}  // namespace shoestring
