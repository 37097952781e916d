#include "data/near_duplicates.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>

#include "data/least_hashes.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr int kShingleWords = 5;
constexpr int kRowsPerBand = 4;
constexpr std::size_t kPendingKeys = 4096;
constexpr int kDocumentBits = 56;

constexpr std::size_t kShinglesAtOnce = 256;

// Letters, digits and underscores of ASCII, and all bytes of other characters.
constexpr std::array<bool, 256> kWordBytes = [] {
  std::array<bool, 256> in_word{};
  for (std::size_t byte = 0; byte < in_word.size(); ++byte) {
    in_word[byte] = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                    byte == '_' || byte >= 0x80;
  }
  return in_word;
}();

bool word_character(char c) { return kWordBytes[static_cast<std::uint8_t>(c)]; }

void write_all(int descriptor, const std::filesystem::path& path, const void* data, std::size_t bytes) {
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor, next, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_io(path, "write to it");
    next += put;
    bytes -= static_cast<std::size_t>(put);
  }
}

}  // namespace

// One way in which a document may meet another: its whole content, or one band of its minima.
struct DuplicateFinder::Key {
  std::uint64_t hash = 0;
  std::uint64_t band_and_document = 0;  // 8 and 56 bits; band kBands: the content hash

  std::uint64_t band() const { return band_and_document >> kDocumentBits; }
  std::int64_t document() const {
    return static_cast<std::int64_t>(band_and_document & ((std::uint64_t{1} << kDocumentBits) - 1));
  }
};

// What the owner of a partition tells the rank that has the document.
struct DuplicateFinder::Found {
  std::uint64_t document = 0;  // of all ranks'
  std::uint64_t exact = 0;
};

std::array<std::uint64_t, 2> content_of(std::string_view text) {
  const XXH128_hash_t content = XXH3_128bits(text.data(), text.size());
  return {content.low64, content.high64};
}

Fingerprint fingerprint(std::string_view text) {
  static_assert(Fingerprint::kMinima == least_hashes::kHashes);
  Fingerprint result;
  result.content = content_of(text);
  result.bytes = static_cast<std::uint32_t>(text.size());
  std::array<std::uint32_t, Fingerprint::kMinima> minima{};
  minima.fill(0xFFFFFFFFu);
  std::array<std::uint64_t, kShingleWords> words{};
  std::array<std::uint32_t, kShinglesAtOnce> shingles{};
  std::size_t gathered = 0;
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size();) {
    while (at < text.size() && !word_character(text[at])) ++at;
    const std::size_t begin = at;
    while (at < text.size() && word_character(text[at])) ++at;
    if (at == begin) break;
    words[count++ % kShingleWords] = XXH3_64bits(text.data() + begin, at - begin);
    if (count < kShingleWords) continue;
    std::uint64_t shingle = 0;  // order-dependent mix of the last five words
    for (std::size_t i = 0; i < kShingleWords; ++i) {
      shingle = (shingle ^ words[(count + i) % kShingleWords]) * 0xD6E8FEB86659FD93u;
      shingle ^= shingle >> 32;
    }
    shingles[gathered++] = static_cast<std::uint32_t>(shingle >> 32);
    if (gathered < shingles.size()) continue;
    least_hashes::take(shingles, minima);
    gathered = 0;
  }
  least_hashes::take(std::span(shingles).first(gathered), minima);
  for (std::size_t i = 0; i < minima.size(); ++i) result.minima[i] = static_cast<std::uint16_t>(minima[i]);
  result.short_text = count < kShingleWords ? 1 : 0;
  return result;
}

double similarity(const Fingerprint& a, const Fingerprint& b) {
  int equal = 0;
  for (std::size_t i = 0; i < a.minima.size(); ++i) equal += a.minima[i] == b.minima[i] ? 1 : 0;
  return static_cast<double>(equal) / Fingerprint::kMinima;
}

DuplicateFinder::DuplicateFinder(std::filesystem::path folder, BuildRanks& ranks)
    : folder_(std::move(folder)), ranks_(ranks) {
  for (int partition = 0; partition < kPartitions; ++partition) {
    const std::filesystem::path path = keys_path(ranks_.rank(), partition);
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor < 0) fail(ExitCode::io, "{}: cannot create it: {}", path.string(), system_reason(errno));
    partitions_[static_cast<std::size_t>(partition)] = descriptor;
  }
}

DuplicateFinder::~DuplicateFinder() { remove_files(); }

void DuplicateFinder::remove_files() noexcept {
  for (int partition = 0; partition < kPartitions; ++partition) {
    int& descriptor = partitions_[static_cast<std::size_t>(partition)];
    if (descriptor >= 0) ::close(std::exchange(descriptor, -1));
    ::unlink(keys_path(ranks_.rank(), partition).c_str());
  }
  ::unlink(found_path(ranks_.rank()).c_str());
}

std::filesystem::path DuplicateFinder::keys_path(int rank, int partition) const {
  return folder_ / fmt::format(".keys.{}.{}", rank, partition);
}
std::filesystem::path DuplicateFinder::found_path(int rank) const { return folder_ / fmt::format(".found.{}", rank); }

void DuplicateFinder::flush(int partition) {
  std::vector<Key>& keys = pending_[static_cast<std::size_t>(partition)];
  write_all(partitions_[static_cast<std::size_t>(partition)], keys_path(ranks_.rank(), partition), keys.data(),
            keys.size() * sizeof(Key));
  keys.clear();
}

void DuplicateFinder::pass() { verdicts_.push_back(Verdict::left_out); }

void DuplicateFinder::add(const Fingerprint& document) {
  const auto put = [&](std::uint64_t hash, int band) {
    const auto partition = static_cast<std::size_t>(hash >> 58);
    pending_[partition].push_back({hash, static_cast<std::uint64_t>(band) << kDocumentBits | verdicts_.size()});
    if (pending_[partition].size() >= kPendingKeys) flush(static_cast<int>(partition));
  };
  put(document.content[0], kBands);
  for (int band = 0; band < kBands && document.short_text == 0; ++band) {
    put(XXH3_64bits_withSeed(&document.minima[static_cast<std::size_t>(band * kRowsPerBand)],
                             kRowsPerBand * sizeof(document.minima[0]), static_cast<std::uint64_t>(band) + 1),
        band);
  }
  verdicts_.push_back(Verdict::keep);
}

// Of all ranks, their documents numbered through.
std::vector<DuplicateFinder::Key> DuplicateFinder::read_partition(int partition) const {
  std::vector<Key> keys;
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    const std::filesystem::path path = keys_path(rank, partition);
    const FileHandle file = open_for_reading(path);
    const auto count = static_cast<std::size_t>(file_bytes(file, path)) / sizeof(Key);
    const std::size_t before = keys.size();
    keys.resize(before + count);
    if (count > 0) read_at(file, path, 0, &keys[before], static_cast<std::int64_t>(count * sizeof(Key)));
    const auto first = static_cast<std::uint64_t>(first_[static_cast<std::size_t>(rank)]);
    for (std::size_t at = before; at < keys.size(); ++at) keys[at].band_and_document += first;
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.hash, a.band_and_document) < std::tie(b.hash, b.band_and_document);
  });
  return keys;
}

// A document is compared with the first of its group and with its predecessor there: linear in the group's size.
// Verdicts depend on fingerprints alone, not on other verdicts, so the order of partitions does not matter.
void DuplicateFinder::judge(const std::vector<Key>& keys, const std::vector<FingerprintRows>& rows,
                            double near_threshold, std::vector<Found>& found) const {
  const auto row = [&](std::int64_t document) {
    const auto rank =
        static_cast<std::size_t>(std::upper_bound(first_.begin(), first_.end(), document) - first_.begin()) - 1;
    Fingerprint print;
    std::memcpy(&print, rows[rank].first + static_cast<std::size_t>(document - first_[rank]) * rows[rank].stride,
                sizeof print);
    return print;
  };
  for (std::size_t begin = 0; begin < keys.size();) {
    std::size_t end = begin;
    while (end < keys.size() && keys[end].hash == keys[begin].hash && keys[end].band() == keys[begin].band()) ++end;
    for (std::size_t i = begin + 1; i < end; ++i) {
      const Fingerprint a = row(keys[i].document());
      bool near = false;
      bool exact = false;
      for (const std::size_t other : {begin, i - 1}) {
        const Fingerprint b = row(keys[other].document());
        exact = exact || a.content == b.content;
        near = near || (a.short_text == 0 && b.short_text == 0 && similarity(a, b) >= near_threshold);
      }
      if (exact || near) found.push_back({static_cast<std::uint64_t>(keys[i].document()), exact ? 1u : 0u});
    }
    begin = end;
  }
}

// What the owners of all partitions found about this rank's documents; that a copy is exact outweighs that it is near.
void DuplicateFinder::take_over(std::vector<Verdict>& verdicts) const {
  const auto first = static_cast<std::uint64_t>(first_[static_cast<std::size_t>(ranks_.rank())]);
  std::vector<Found> some(kPendingKeys);
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    const std::filesystem::path path = found_path(rank);
    const FileHandle file = open_for_reading(path);
    const auto count = static_cast<std::size_t>(file_bytes(file, path)) / sizeof(Found);
    for (std::size_t at = 0; at < count; at += some.size()) {
      some.resize(std::min(kPendingKeys, count - at));
      read_at(file, path, static_cast<std::int64_t>(at * sizeof(Found)), some.data(),
              static_cast<std::int64_t>(some.size() * sizeof(Found)));
      for (const Found& one : some) {
        if (one.document < first || one.document - first >= verdicts.size()) continue;
        Verdict& verdict = verdicts[one.document - first];
        if (one.exact != 0) {
          verdict = Verdict::exact_duplicate;
        } else if (verdict == Verdict::keep) {
          verdict = Verdict::near_duplicate;
        }
      }
    }
  }
}

std::vector<DuplicateFinder::Verdict> DuplicateFinder::finish(const std::vector<FingerprintRows>& rows,
                                                              double near_threshold) {
  check(static_cast<int>(rows.size()) == ranks_.size(), "fingerprints of {} ranks of {}", rows.size(), ranks_.size());
  for (int partition = 0; partition < kPartitions; ++partition) {
    flush(partition);
    const bool shared = ranks_.size() > 1;
    if (shared && ::fsync(partitions_[static_cast<std::size_t>(partition)]) != 0) {
      fail_io(keys_path(ranks_.rank(), partition), "write to it");
    }
  }
  const auto documents = static_cast<std::int64_t>(verdicts_.size());
  first_ = {0};
  for (const std::int64_t count : ranks_.gather({&documents, 1})) first_.push_back(first_.back() + count);
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    check(rows[rank].count == first_[rank + 1] - first_[rank], "{} fingerprints of rank {}, which read {} documents",
          rows[rank].count, rank, first_[rank + 1] - first_[rank]);
  }
  const std::filesystem::path path = found_path(ranks_.rank());
  FileHandle file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.open()) fail(ExitCode::io, "{}: cannot create it: {}", path.string(), system_reason(errno));
  for (int partition = ranks_.rank(); partition < kPartitions; partition += ranks_.size()) {
    std::vector<Found> found;
    judge(read_partition(partition), rows, near_threshold, found);
    write_all(file.get(), path, found.data(), found.size() * sizeof(Found));
  }
  file.close();
  ranks_.wait_for_all();
  std::vector<Verdict> verdicts = std::move(verdicts_);
  take_over(verdicts);
  ranks_.wait_for_all();
  remove_files();
  return verdicts;
}

}  // namespace shoestring
