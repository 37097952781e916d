// Byte-pair encoding of one word: its bytes become tokens, then the pair of neighbours that was learnt first is joined,
// the leftmost of equals, until no pair is known (Sennrich et al. 2016, arXiv 1508.07909, section 3.2).
//
// A short word takes the square of its length, a long one n log n. Words that come again are looked up in a cache: it
// is a parameter, so that the merges stay immutable and threads share nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace shoestring {

/// Words of at most kLongest bytes and what they become; a word takes the place of another with its hash. One per
/// thread, and always with the same merges.
class WordCache {
 public:
  static constexpr std::size_t kLongest = 31;
  static constexpr std::size_t kMostIds = 23;

  WordCache() : slots_(std::size_t{1} << kBits) {}

 private:
  friend class BytePairs;
  static constexpr int kBits = 15;
  using Key = std::array<std::uint64_t, 4>;  // the word, zeros, its length in the last byte
  struct alignas(128) Slot {                 // what most words need lies in the first cache line
    Key key{};
    std::uint32_t count = 0;
    std::array<std::uint32_t, kMostIds> ids{};
  };
  static Key key_of(std::string_view word);
  Slot& slot_of(const Key& key);

  std::vector<Slot> slots_;
};

/// Caches for as many threads as ask, all for the same merges.
class WordCaches {
 public:
  /// A cache that nobody else uses meanwhile.
  class Lease {
   public:
    explicit Lease(WordCaches& owner);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordCache& operator*() const { return *words_; }

   private:
    WordCaches& owner_;
    std::unique_ptr<WordCache> words_;
  };

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

/// Immutable and thread-safe.
class BytePairs {
 public:
  struct Merge {
    std::uint32_t left = 0, right = 0, merged = 0;
    bool ties = false;  ///< with the merge before it: of both the leftmost in the word is joined first
  };

  using Words = std::unordered_map<std::string_view, std::uint32_t>;

  static constexpr std::uint32_t kNoId = ~std::uint32_t{0};

  /// Ids of the 256 bytes, kNoId for one that is left out of every word; merges in the order they were learnt, of a
  /// pair that comes twice the later place counts; words that become one token whatever the merges say, whose bytes the
  /// caller keeps.
  BytePairs(const std::array<std::uint32_t, 256>& bytes, const std::vector<Merge>& merges, Words words = {});

  /// Of a byte by itself.
  std::uint32_t id_of(char byte) const { return bytes_[static_cast<std::uint8_t>(byte)]; }
  /// Appends the ids of `word`, however long it is.
  void encode(std::string_view word, std::vector<std::uint32_t>& ids) const;
  /// The same through a cache.
  void encode(std::string_view word, WordCache& cache, std::vector<std::uint32_t>& ids) const;

 private:
  // Rank above, merged id below; kNone for a pair that is never joined.
  std::uint64_t find(std::uint32_t left, std::uint32_t right) const;
  std::size_t place_of(std::uint64_t pair) const;
  void encode_short(std::string_view word, std::vector<std::uint32_t>& ids) const;
  void encode_long(std::string_view word, std::vector<std::uint32_t>& ids) const;

  struct Entry {
    std::uint64_t pair, rank_and_id;
  };
  std::array<std::uint32_t, 256> bytes_;
  std::vector<Entry> table_;  // open addressing, at most half full
  int shift_ = 0;
  Words words_;
};

}  // namespace shoestring
