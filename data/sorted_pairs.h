// Pairs of numbers in order, on disk, as many as it holds: runs that are sorted in memory, then merged (Knuth, "The Art
// of Computer Programming", volume 3, section 5.4). Memory: 8 MiB while pairs are gathered, and the same while files of
// them are read as one, whatever their number and however many of them are equal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/base/file.h"

namespace shoestring {

struct NumberPair {
  std::uint64_t first = 0, second = 0;

  bool operator==(const NumberPair& other) const = default;
  bool operator<(const NumberPair& other) const {
    return first != other.first ? first < other.first : second < other.second;
  }
};

/// Takes pairs in any order; `finish` leaves them in order in a file, which is there as long as the sorter,
/// or longer while it is lent.
class PairSorter {
 public:
  static constexpr std::size_t kInMemory = std::size_t{8 << 20} / sizeof(NumberPair);

  /// Other files are called like `path`, with a number behind it.
  explicit PairSorter(std::filesystem::path path, std::size_t in_memory = kInMemory);
  ~PairSorter();
  PairSorter(const PairSorter&) = delete;
  PairSorter& operator=(const PairSorter&) = delete;

  void add(const NumberPair& pair) {
    pending_.push_back(pair);
    if (pending_.size() >= in_memory_) spill();
  }
  /// `tick`: what is done now and then meanwhile; may be empty, and may throw.
  void finish(const std::function<void()>& tick = nullptr);
  /// While it is lent to other ranks the file stays when the sorter goes: an error here must not take it from them.
  void lend(bool lent) { lent_ = lent; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Run {
    std::filesystem::path path;
    int level = 0;  ///< a run of level n + 1 was merged from kWays of level n
  };
  static constexpr std::size_t kWays = 64;
  void spill();
  void merge(std::size_t runs, const std::filesystem::path& to, const std::function<void()>& tick);
  std::filesystem::path next_path();

  std::filesystem::path path_;
  std::size_t in_memory_;
  std::vector<NumberPair> pending_;
  std::vector<Run> runs_;  // levels never rise
  std::int64_t named_ = 0;
  bool lent_ = false;
};

/// Several files of pairs in order, read as one.
class SortedPairs {
 public:
  struct Source {
    std::filesystem::path path;
    std::uint64_t added = 0;  ///< to the second number of each pair
  };
  /// The pairs whose first number is from `least` to `most`. Throws Error(io).
  explicit SortedPairs(const std::vector<Source>& sources, std::uint64_t least = 0,
                       std::uint64_t most = std::numeric_limits<std::uint64_t>::max());
  /// False at the end.
  bool next(NumberPair& pair);

 private:
  struct Way {
    std::filesystem::path path;
    FileHandle file;
    std::uint64_t added = 0;
    std::int64_t at = 0, end = 0;  // pairs of the file that were not read yet
    std::vector<NumberPair> ahead;
    std::size_t used = 0;

    std::int64_t first_from(std::uint64_t number) const;
    bool fill(std::size_t most);
    NumberPair front() const { return {ahead[used].first, ahead[used].second + added}; }
  };
  struct Front {
    NumberPair pair;
    std::size_t way = 0;
    bool operator<(const Front& other) const { return other.pair < pair; }  // of heaps: the least on top
  };

  std::vector<Way> ways_;
  std::vector<Front> fronts_;  // a heap
  std::size_t block_ = 0;      // pairs that a way reads at once
};

}  // namespace shoestring
