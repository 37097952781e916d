#include "data/shard_contents.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <numeric>

#include "data/characters.h"
#include "data/token_source.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

constexpr std::uint64_t kTokensAtOnce = std::uint64_t{1} << 18;

std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

void count_lengths(const Shard& shard, std::vector<LengthBin>& bins) {
  std::uint64_t begin = 0;
  for (const std::uint64_t end : shard.doc_ends()) {
    const std::uint64_t length = end - begin;
    const auto bin = static_cast<std::size_t>(std::bit_width(length) - 1);
    while (bins.size() <= bin) bins.push_back({std::uint64_t{1} << bins.size(), 0, 0});
    ++bins[bin].documents;
    bins[bin].tokens += length;
    begin = end;
  }
}

template <class Tell>
void count_tokens(const Shard& shard, std::vector<std::uint64_t>& counts, const Tell& tell) {
  std::vector<std::int32_t> ids;
  for (std::uint64_t begin = 0; begin < shard.info().tokens; begin += kTokensAtOnce) {
    ids.resize(std::min(kTokensAtOnce, shard.info().tokens - begin));
    shard.read(begin, ids.size(), ids.data());
    for (const std::int32_t id : ids) ++counts[static_cast<std::size_t>(id)];
    tell(ids.size());
  }
}

std::vector<PieceCount> most_frequent(const std::vector<std::uint64_t>& counts, const ShardLook& look) {
  std::vector<std::uint32_t> ids(counts.size());
  std::iota(ids.begin(), ids.end(), 0u);
  const std::size_t most = std::min(look.frequent, ids.size());
  std::partial_sort(
      ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(most), ids.end(),
      [&](std::uint32_t a, std::uint32_t b) { return counts[a] != counts[b] ? counts[a] > counts[b] : a < b; });
  std::vector<PieceCount> pieces;
  for (std::size_t at = 0; at < most && counts[ids[at]] > 0; ++at) {
    const auto id = static_cast<std::int32_t>(ids[at]);
    pieces.push_back({ids[at], counts[ids[at]], look.tokenizer != nullptr ? look.tokenizer->decode({&id, 1}) : ""});
  }
  return pieces;
}

// Bytes of the document's front, cut between characters.
std::string front_of(const Shard& shard, std::uint64_t begin, std::uint64_t end, const ShardLook& look) {
  std::vector<std::int32_t> ids(std::min<std::uint64_t>(end - begin, look.sample_bytes));
  shard.read(begin, ids.size(), ids.data());
  std::string text = look.tokenizer->decode(ids);
  const std::string_view front = std::string_view(text).substr(0, look.sample_bytes);
  const auto continues = [&](std::size_t at) { return (static_cast<unsigned char>(front[at]) & 0xC0) == 0x80; };
  std::size_t last = front.empty() ? 0 : front.size() - 1;  // where its last character begins
  while (last > 0 && continues(last)) --last;
  const bool whole = front.empty() || character_bytes(front.substr(last)) == front.size() - last;
  return std::string(whole ? front : front.substr(0, last));
}

// Of all documents numbered through, every so many-th.
void take_samples(const Shard& shard, std::uint64_t first, std::uint64_t all, const ShardLook& look,
                  std::vector<DocumentSample>& samples) {
  for (std::size_t at = 0; look.tokenizer != nullptr && at < look.samples && at < all; ++at) {
    const std::uint64_t document = all * (2 * at + 1) / (2 * std::min<std::uint64_t>(look.samples, all));
    if (document < first || document - first >= shard.info().documents) continue;
    const std::uint64_t own = document - first;
    const std::uint64_t begin = own == 0 ? 0 : shard.doc_ends()[own - 1];
    const std::uint64_t end = shard.doc_ends()[own];
    samples.push_back({fmt::format("{}, document {}", file_name(shard.info().path), own), end - begin,
                       front_of(shard, begin, end, look)});
  }
}

}  // namespace

ShardContents look_into(const std::vector<std::string>& shards, const ShardLook& look) {
  ShardContents contents;
  bool knows_bytes = true;
  std::vector<Shard> open;
  for (const std::string& path : shards) {
    open.push_back(Shard::open(path, {ShardIo::pread, true}));
    const ShardInfo& info = open.back().info();
    require_same_tokens(open.front().info(), info);
    contents.documents += info.documents;
    contents.tokens += info.tokens;
    contents.text_bytes += info.text_bytes;
    knows_bytes = knows_bytes && info.text_bytes > 0;
    SourceShare& source = contents.sources[info.source];
    ++source.shards;
    source.documents += info.documents;
    source.tokens += info.tokens;
  }
  check(!open.empty(), "no shard to look into");
  const ShardInfo& info = open.front().info();
  if (look.tokenizer != nullptr && look.tokenizer->hash() != info.tokenizer_hash) {
    fail(ExitCode::bad_data, "{}: was made with another tokenizer ({}) than the one given ({}): name that one",
         info.path, info.tokenizer_hash, look.tokenizer->hash());
  }
  contents.shards = open.size();
  contents.vocabulary_size = info.vocabulary_size;
  std::vector<std::uint64_t> counts(info.vocabulary_size);
  std::uint64_t first = 0;
  std::uint64_t read = 0;
  for (const Shard& shard : open) {
    count_lengths(shard, contents.lengths);
    count_tokens(shard, counts, [&](std::uint64_t more) {
      read += more;
      if (look.tell) look.tell(read, contents.tokens);
    });
    take_samples(shard, first, contents.documents, look, contents.samples);
    first += shard.info().documents;
  }
  contents.distinct_ids =
      static_cast<std::uint64_t>(std::count_if(counts.begin(), counts.end(), [](std::uint64_t n) { return n > 0; }));
  contents.frequent = most_frequent(counts, look);
  if (knows_bytes) {
    contents.tokens_per_byte =
        static_cast<double>(contents.tokens - contents.documents) / static_cast<double>(contents.text_bytes);
  }
  return contents;
}

}  // namespace shoestring
