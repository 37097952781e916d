// Which documents of a corpus repeat earlier ones: exactly, or nearly.
//
// Exact: equal 128-bit content hashes. Near: MinHash over 5-word shingles (Broder, "On the resemblance and containment
// of documents", 1997): 64 minima in 16 bands of 4; documents that agree in a band are compared by all 64, and dropped
// from an estimated Jaccard similarity of 0.8 on. The first document of a group stays.
//
// Memory stays bounded whatever the corpus: signatures and band keys go to files in a working folder, and one of 64
// partitions of the keys is sorted in memory at a time. What stays in memory is one byte per document.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace shoestring {

/// What is remembered of a document.
struct Fingerprint {
  static constexpr int kMinima = 64;
  std::array<std::uint64_t, 2> content{};  ///< XXH3-128 of the text
  std::array<std::uint32_t, kMinima> minima{};
  bool short_text = false;  ///< fewer than kShingleWords words: compared exactly only
};

Fingerprint fingerprint(std::string_view text);
/// Share of equal minima: estimates the Jaccard similarity of the shingle sets.
double similarity(const Fingerprint& a, const Fingerprint& b);

class DuplicateFinder {
 public:
  /// Files go to `folder`, which must exist; they are removed at the end.
  explicit DuplicateFinder(std::filesystem::path folder);
  ~DuplicateFinder();
  DuplicateFinder(const DuplicateFinder&) = delete;
  DuplicateFinder& operator=(const DuplicateFinder&) = delete;

  /// Documents are numbered 0, 1, 2, ... as they are added.
  void add(const Fingerprint& document);

  enum class Verdict : std::uint8_t { keep, exact_duplicate, near_duplicate };
  /// After the last add: the verdict on every document.
  std::vector<Verdict> finish(double near_threshold = 0.8);

 private:
  static constexpr int kPartitions = 64;
  static constexpr int kBands = 16;
  struct Key;
  void flush(int partition);
  std::vector<Key> read_partition(int partition) const;

  std::filesystem::path folder_;
  std::array<int, kPartitions> partitions_{};
  int signatures_ = -1;
  std::array<std::vector<Key>, kPartitions> pending_;
  std::vector<Fingerprint> pending_signatures_;
  std::int64_t documents_ = 0;
};

}  // namespace shoestring
