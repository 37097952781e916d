#include "data/near_duplicates.h"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "data/least_hashes.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr int kShingleWords = 5;
constexpr int kRowsPerBand = 4;
constexpr int kDocumentBits = 56;

constexpr std::size_t kShinglesAtOnce = 256;
constexpr std::int64_t kKeysATick = 1 << 16;

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

// The second number of a key: 8 bits of the band, kBands for the content's hash, and 56 of the document.
std::uint64_t band_and_document(int band, std::int64_t document) {
  return static_cast<std::uint64_t>(band) << kDocumentBits | static_cast<std::uint64_t>(document);
}
std::int64_t document_of(const NumberPair& key) {
  return static_cast<std::int64_t>(key.second & ((std::uint64_t{1} << kDocumentBits) - 1));
}
// Whether one may be near the other, or a copy of it.
bool meet(const NumberPair& a, const NumberPair& b) {
  return a.first == b.first && a.second >> kDocumentBits == b.second >> kDocumentBits;
}

std::filesystem::path path_of(const std::filesystem::path& folder, const char* name, int rank) {
  return folder / fmt::format(".{}.{}", name, rank);
}

constexpr const char* kKeys = "keys";
constexpr const char* kFound = "found";

}  // namespace

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

FingerprintRows::FingerprintRows(std::filesystem::path path, std::int64_t record_bytes)
    : path_(std::move(path)),
      file_(open_for_reading(path_)),
      record_bytes_(record_bytes),
      count_(file_bytes(file_, path_) / record_bytes) {}

Fingerprint FingerprintRows::operator[](std::int64_t number) const {
  Fingerprint print;
  read_at(file_, path_, number * record_bytes_, &print, sizeof print);
  return print;
}

DuplicateFinder::DuplicateFinder(const std::filesystem::path& folder, BuildRanks& ranks)
    : folder_(folder),
      ranks_(ranks),
      keys_(path_of(folder, kKeys, ranks.rank())),
      found_(path_of(folder, kFound, ranks.rank())) {
  // Of a build on more ranks, one of which was stopped while its files were lent.
  for (int other = ranks.size(); ranks.rank() == 0; ++other) {
    const bool keys = ::unlink(path_of(folder, kKeys, other).c_str()) == 0;
    const bool found = ::unlink(path_of(folder, kFound, other).c_str()) == 0;
    if (!keys && !found) break;
  }
}

void DuplicateFinder::add(const Fingerprint& document) {
  keys_.add({document.content[0], band_and_document(kBands, documents_)});
  for (int band = 0; band < kBands && document.short_text == 0; ++band) {
    const auto row = static_cast<std::size_t>(band * kRowsPerBand);
    const std::uint64_t hash = XXH3_64bits_withSeed(&document.minima[row], kRowsPerBand * sizeof(document.minima[0]),
                                                    static_cast<std::uint64_t>(band) + 1);
    keys_.add({hash, band_and_document(band, documents_)});
  }
  ++documents_;
}

std::vector<SortedPairs::Source> DuplicateFinder::files_of_all(const char* name, bool numbers_through) const {
  std::vector<SortedPairs::Source> files;
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    const std::int64_t before = numbers_through ? first_[static_cast<std::size_t>(rank)] : 0;
    files.push_back({path_of(folder_, name, rank), static_cast<std::uint64_t>(before)});
  }
  return files;
}

// A document is compared with the first of those it meets and with its predecessor there: linear in their number.
// Verdicts depend on fingerprints alone, not on other verdicts, so the order of keys does not matter.
void DuplicateFinder::judge(SortedPairs keys, const std::vector<FingerprintRows>& rows, double near_threshold,
                            const std::function<void()>& tick) {
  const auto print_of = [&](const NumberPair& key) {
    const std::int64_t document = document_of(key);
    const auto behind = std::upper_bound(first_.begin(), first_.end(), document);
    const auto rank = static_cast<std::size_t>(behind - first_.begin()) - 1;
    return rows[rank][document - first_[rank]];
  };
  NumberPair key, first_key{};
  std::optional<Fingerprint> first, before;  // read when another one meets them
  for (std::int64_t number = 0; keys.next(key); ++number) {
    if (number % kKeysATick == 0) tick();
    if (number == 0 || !meet(key, first_key)) {
      first_key = key;
      first.reset();
      continue;
    }
    if (!first) before = first = print_of(first_key);
    const Fingerprint print = print_of(key);
    bool near = false;
    bool exact = false;
    for (const Fingerprint* other : {&*first, &*before}) {
      exact = exact || print.content == other->content;
      near = near || (print.short_text == 0 && other->short_text == 0 && similarity(print, *other) >= near_threshold);
    }
    if (exact || near) found_.add({static_cast<std::uint64_t>(document_of(key)), exact ? 1u : 0u});
    before = print;
  }
}

void DuplicateFinder::finish(const std::vector<FingerprintRows>& rows, double near_threshold, const Tell& tell,
                             const std::function<void()>& tick) {
  check(static_cast<int>(rows.size()) == ranks_.size(), "fingerprints of {} ranks of {}", rows.size(), ranks_.size());
  keys_.finish(tick);
  keys_.lend(true);
  first_ = {0};
  for (const std::int64_t count : ranks_.gather({&documents_, 1})) first_.push_back(first_.back() + count);
  for (std::size_t rank = 0; rank < rows.size(); ++rank) {
    check(rows[rank].count() == first_[rank + 1] - first_[rank], "{} fingerprints of rank {}, which read {} documents",
          rows[rank].count(), rank, first_[rank + 1] - first_[rank]);
  }
  const auto rank = static_cast<std::uint64_t>(ranks_.rank());
  const bool last = ranks_.rank() + 1 == ranks_.size();
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t share = kMost / static_cast<std::uint64_t>(ranks_.size());
  judge(SortedPairs(files_of_all(kKeys, true), rank * share, last ? kMost : (rank + 1) * share - 1), rows,
        near_threshold, tick);
  found_.finish(tick);
  found_.lend(true);
  ranks_.wait_for_all();
  if (documents_ > 0) {
    const auto own = static_cast<std::uint64_t>(first_[rank]);
    SortedPairs found(files_of_all(kFound, false), own, own + static_cast<std::uint64_t>(documents_) - 1);
    for (NumberPair one; found.next(one);) tell(static_cast<std::int64_t>(one.first - own), one.second != 0);
  }
  ranks_.wait_for_all();  // before files are removed
  keys_.lend(false);
  found_.lend(false);
}

}  // namespace shoestring
