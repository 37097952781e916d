#include "data/near_duplicates.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr int kShingleWords = 5;
constexpr int kRowsPerBand = 4;
constexpr std::size_t kPendingKeys = 4096;
constexpr std::size_t kPendingSignatures = 1024;

// Hash number i of a shingle is a * x + b over 64 bits, upper half taken; a, b from a fixed sequence.
struct HashFamily {
  std::array<std::uint64_t, Fingerprint::kMinima> a{};
  std::array<std::uint64_t, Fingerprint::kMinima> b{};
  HashFamily() {
    std::uint64_t state = 0x9E3779B97F4A7C15u;
    const auto next = [&state] {  // SplitMix64
      std::uint64_t z = (state += 0x9E3779B97F4A7C15u);
      z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
      z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
      return z ^ (z >> 31);
    };
    for (std::size_t i = 0; i < a.size(); ++i) {
      a[i] = next() | 1;
      b[i] = next();
    }
  }
};

bool word_character(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || (c & 0x80) != 0; }

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

// The stored signatures as one read-only array.
class SignatureMap {
 public:
  SignatureMap(int descriptor, const std::filesystem::path& path, std::int64_t documents)
      : bytes_(static_cast<std::size_t>(documents) * sizeof(Fingerprint)) {
    if (bytes_ == 0) return;
    data_ = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data_ == MAP_FAILED) fail_io(path, "map it");
  }
  ~SignatureMap() {
    if (bytes_ > 0) munmap(data_, bytes_);
  }
  SignatureMap(const SignatureMap&) = delete;
  SignatureMap& operator=(const SignatureMap&) = delete;
  const Fingerprint& operator[](std::int64_t document) const {
    return static_cast<const Fingerprint*>(data_)[document];
  }

 private:
  std::size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace

// One way in which a document may meet another: its whole content, or one band of its minima.
struct DuplicateFinder::Key {
  std::uint64_t hash = 0;
  std::int64_t document = 0;
  std::uint8_t band = 0;  // kBands: the content hash
};

Fingerprint fingerprint(std::string_view text) {
  static const HashFamily family;
  Fingerprint result;
  const XXH128_hash_t content = XXH3_128bits(text.data(), text.size());
  result.content = {content.low64, content.high64};
  result.minima.fill(0xFFFFFFFFu);
  std::array<std::uint64_t, kShingleWords> words{};
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
    for (std::size_t i = 0; i < family.a.size(); ++i) {
      result.minima[i] =
          std::min(result.minima[i], static_cast<std::uint32_t>((family.a[i] * shingle + family.b[i]) >> 32));
    }
  }
  result.short_text = count < kShingleWords;
  return result;
}

double similarity(const Fingerprint& a, const Fingerprint& b) {
  int equal = 0;
  for (std::size_t i = 0; i < a.minima.size(); ++i) equal += a.minima[i] == b.minima[i] ? 1 : 0;
  return static_cast<double>(equal) / Fingerprint::kMinima;
}

DuplicateFinder::DuplicateFinder(std::filesystem::path folder) : folder_(std::move(folder)) {
  const auto create = [this](const std::string& name) {
    const std::filesystem::path path = folder_ / name;
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor < 0) fail(ExitCode::io, "{}: cannot create it: {}", path.string(), system_reason(errno));
    ::unlink(path.c_str());  // lives as long as it is open
    return descriptor;
  };
  signatures_ = create(".signatures");
  for (int partition = 0; partition < kPartitions; ++partition) {
    partitions_[static_cast<std::size_t>(partition)] = create(fmt::format(".keys.{}", partition));
  }
}

DuplicateFinder::~DuplicateFinder() {
  ::close(signatures_);
  for (const int descriptor : partitions_) ::close(descriptor);
}

void DuplicateFinder::flush(int partition) {
  std::vector<Key>& keys = pending_[static_cast<std::size_t>(partition)];
  write_all(partitions_[static_cast<std::size_t>(partition)], folder_, keys.data(), keys.size() * sizeof(Key));
  keys.clear();
}

void DuplicateFinder::add(const Fingerprint& document) {
  const auto put = [&](std::uint64_t hash, int band) {
    const auto partition = static_cast<std::size_t>(hash >> 58);
    pending_[partition].push_back({hash, documents_, static_cast<std::uint8_t>(band)});
    if (pending_[partition].size() >= kPendingKeys) flush(static_cast<int>(partition));
  };
  put(document.content[0], kBands);
  for (int band = 0; band < kBands && !document.short_text; ++band) {
    put(XXH3_64bits_withSeed(&document.minima[static_cast<std::size_t>(band * kRowsPerBand)],
                             kRowsPerBand * sizeof(std::uint32_t), static_cast<std::uint64_t>(band) + 1),
        band);
  }
  pending_signatures_.push_back(document);
  if (pending_signatures_.size() >= kPendingSignatures) {
    write_all(signatures_, folder_, pending_signatures_.data(), pending_signatures_.size() * sizeof(Fingerprint));
    pending_signatures_.clear();
  }
  ++documents_;
}

std::vector<DuplicateFinder::Key> DuplicateFinder::read_partition(int partition) const {
  const int descriptor = partitions_[static_cast<std::size_t>(partition)];
  const off_t bytes = lseek(descriptor, 0, SEEK_END);
  std::vector<Key> keys(static_cast<std::size_t>(bytes) / sizeof(Key));
  for (off_t at = 0; at < bytes;) {
    const ssize_t got =
        pread(descriptor, reinterpret_cast<char*>(keys.data()) + at, static_cast<std::size_t>(bytes - at), at);
    if (got <= 0) fail_io(folder_, "read a key file back");
    at += got;
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    return std::tie(a.hash, a.band, a.document) < std::tie(b.hash, b.band, b.document);
  });
  return keys;
}

std::vector<DuplicateFinder::Verdict> DuplicateFinder::finish(double near_threshold) {
  for (int partition = 0; partition < kPartitions; ++partition) flush(partition);
  write_all(signatures_, folder_, pending_signatures_.data(), pending_signatures_.size() * sizeof(Fingerprint));
  pending_signatures_.clear();
  const SignatureMap signatures(signatures_, folder_, documents_);
  std::vector<Verdict> verdicts(static_cast<std::size_t>(documents_), Verdict::keep);
  // A document is compared with the first of its group and with its predecessor there: linear in the group's size.
  // Verdicts depend on signatures alone, not on other verdicts, so the order of partitions does not matter.
  for (int partition = 0; partition < kPartitions; ++partition) {
    const std::vector<Key> keys = read_partition(partition);
    for (std::size_t begin = 0; begin < keys.size();) {
      std::size_t end = begin;
      while (end < keys.size() && keys[end].hash == keys[begin].hash && keys[end].band == keys[begin].band) ++end;
      for (std::size_t i = begin + 1; i < end; ++i) {
        Verdict& verdict = verdicts[static_cast<std::size_t>(keys[i].document)];
        for (const std::size_t other : {begin, i - 1}) {
          const Fingerprint& a = signatures[keys[i].document];
          const Fingerprint& b = signatures[keys[other].document];
          if (a.content == b.content) {
            verdict = Verdict::exact_duplicate;
          } else if (verdict == Verdict::keep && !a.short_text && !b.short_text && similarity(a, b) >= near_threshold) {
            verdict = Verdict::near_duplicate;
          }
        }
      }
      begin = end;
    }
  }
  return verdicts;
}

}  // namespace shoestring
