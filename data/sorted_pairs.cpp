#include "data/sorted_pairs.h"

#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "data/working_file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPairBytes = sizeof(NumberPair);
constexpr std::size_t kWrittenAtOnce = 8192;

/// Writes pairs to a file one behind the other.
class PairFile {
 public:
  explicit PairFile(const fs::path& path) : file_(path, WorkingFile::Content::none) {}
  void write(std::span<const NumberPair> pairs) {
    file_.write(offset_, pairs.data(), pairs.size_bytes());
    offset_ += static_cast<std::int64_t>(pairs.size_bytes());
  }

 private:
  WorkingFile file_;
  std::int64_t offset_ = 0;
};

}  // namespace

PairSorter::PairSorter(fs::path path, std::size_t in_memory) : path_(std::move(path)), in_memory_(in_memory) {}

PairSorter::~PairSorter() {
  for (const Run& run : runs_) ::unlink(run.path.c_str());
  if (!lent_) ::unlink(path_.c_str());
}

fs::path PairSorter::next_path() {
  fs::path path = path_;
  return path += "." + std::to_string(named_++);
}

void PairSorter::spill() {
  std::sort(pending_.begin(), pending_.end());
  runs_.push_back({next_path(), 0});
  PairFile(runs_.back().path).write(pending_);
  pending_.clear();
  while (runs_.size() >= kWays && runs_[runs_.size() - kWays].level == runs_.back().level) {
    const Run merged{next_path(), runs_.back().level + 1};
    merge(kWays, merged.path, nullptr);
    runs_.push_back(merged);
  }
}

// The last runs in one.
void PairSorter::merge(std::size_t runs, const fs::path& to, const std::function<void()>& tick) {
  std::vector<SortedPairs::Source> sources;
  for (std::size_t i = runs_.size() - runs; i < runs_.size(); ++i) sources.push_back({runs_[i].path, 0});
  SortedPairs pairs(sources);
  PairFile file(to);
  std::vector<NumberPair> some;
  NumberPair pair;
  while (pairs.next(pair)) {
    some.push_back(pair);
    if (some.size() < kWrittenAtOnce) continue;
    file.write(some);
    some.clear();
    if (tick) tick();
  }
  file.write(some);
  for (const SortedPairs::Source& source : sources) ::unlink(source.path.c_str());
  runs_.resize(runs_.size() - runs);
}

void PairSorter::finish(const std::function<void()>& tick) {
  if (runs_.empty()) {
    std::sort(pending_.begin(), pending_.end());
    PairFile(path_).write(pending_);
  } else {
    if (!pending_.empty()) spill();
    pending_.shrink_to_fit();
    merge(runs_.size(), path_, tick);
  }
  pending_ = {};
}

// The first pair whose first number is not below `number`, of those from `at` on.
std::int64_t SortedPairs::Way::first_from(std::uint64_t number) const {
  std::int64_t begin = at, behind = end;
  while (begin < behind) {
    const std::int64_t middle = begin + (behind - begin) / 2;
    NumberPair pair;
    read_at(file, path, middle * kPairBytes, &pair, kPairBytes);
    (pair.first < number ? begin : behind) = pair.first < number ? middle + 1 : middle;
  }
  return begin;
}

bool SortedPairs::Way::fill(std::size_t most) {
  ahead.resize(static_cast<std::size_t>(std::min(end - at, static_cast<std::int64_t>(most))));
  used = 0;
  if (ahead.empty()) return false;
  const auto count = static_cast<std::int64_t>(ahead.size());
  read_at(file, path, at * kPairBytes, ahead.data(), count * kPairBytes);
  at += count;
  return true;
}

SortedPairs::SortedPairs(const std::vector<Source>& sources, std::uint64_t least, std::uint64_t most)
    : block_(std::max<std::size_t>(1, PairSorter::kInMemory / std::max<std::size_t>(1, sources.size()))) {
  for (const Source& source : sources) {
    Way way{source.path, open_for_reading(source.path), source.added, 0, 0, {}, 0};
    way.end = file_bytes(way.file, way.path) / kPairBytes;
    if (least > 0) way.at = way.first_from(least);
    if (most < std::numeric_limits<std::uint64_t>::max()) way.end = way.first_from(most + 1);
    if (!way.fill(block_)) continue;
    fronts_.push_back({way.front(), ways_.size()});
    ways_.push_back(std::move(way));
  }
  std::make_heap(fronts_.begin(), fronts_.end());
}

bool SortedPairs::next(NumberPair& pair) {
  if (fronts_.empty()) return false;
  std::pop_heap(fronts_.begin(), fronts_.end());
  Front& front = fronts_.back();
  pair = front.pair;
  Way& way = ways_[front.way];
  if (++way.used == way.ahead.size() && !way.fill(block_)) {
    fronts_.pop_back();
    return true;
  }
  front.pair = way.front();
  std::push_heap(fronts_.begin(), fronts_.end());
  return true;
}

}  // namespace shoestring
