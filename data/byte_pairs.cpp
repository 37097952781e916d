#include "data/byte_pairs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>
#include <tuple>

namespace shoestring {
namespace {

constexpr std::uint64_t kNone = ~std::uint64_t{0};
constexpr std::uint64_t kSpread = 0x9E3779B97F4A7C15;  // 2^64 over the golden ratio
constexpr std::size_t kShort = 48;                     // bytes; above, a heap is faster

std::uint64_t pair_of(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

}  // namespace

WordCache::Key WordCache::key_of(std::string_view word) {
  Key key{};
  std::memcpy(key.data(), word.data(), word.size());
  key[3] |= static_cast<std::uint64_t>(word.size()) << 56;
  return key;
}

WordCache::Slot& WordCache::slot_of(const Key& key) {
  std::uint64_t hash = (key[0] ^ std::rotl(key[2], 29)) * kSpread;
  hash ^= (key[1] ^ std::rotl(key[3], 31)) * 0xC2B2AE3D27D4EB4F;
  hash = (hash ^ hash >> 32) * kSpread;
  return slots_[hash >> (64 - kBits)];
}

WordCaches::Lease::Lease(WordCaches& owner) : owner_(owner) {
  const std::lock_guard lock(owner_.lock_);
  if (owner_.idle_.empty()) {
    words_ = std::make_unique<WordCache>();
  } else {
    words_ = std::move(owner_.idle_.back());
    owner_.idle_.pop_back();
  }
}

WordCaches::Lease::~Lease() {
  const std::lock_guard lock(owner_.lock_);
  owner_.idle_.push_back(std::move(words_));
}

BytePairs::BytePairs(const std::array<std::uint32_t, 256>& bytes, const std::vector<Merge>& merges, Words words)
    : bytes_(bytes), table_(std::bit_ceil(2 * merges.size() + 2), Entry{kNone, kNone}), words_(std::move(words)) {
  shift_ = 64 - std::countr_zero(table_.size());
  std::uint64_t rank = 0;
  for (const Merge& merge : merges) {
    if (!merge.ties) ++rank;
    const std::uint64_t pair = pair_of(merge.left, merge.right);
    table_[place_of(pair)] = {pair, rank << 32 | merge.merged};
  }
}

std::size_t BytePairs::place_of(std::uint64_t pair) const {
  std::size_t place = (pair * kSpread) >> shift_;
  while (table_[place].pair != pair && table_[place].pair != kNone) place = (place + 1) & (table_.size() - 1);
  return place;
}

std::uint64_t BytePairs::find(std::uint32_t left, std::uint32_t right) const {
  return table_[place_of(pair_of(left, right))].rank_and_id;
}

void BytePairs::encode(std::string_view word, std::vector<std::uint32_t>& ids) const {
  if (const auto whole = words_.empty() ? words_.end() : words_.find(word); whole != words_.end()) {
    ids.push_back(whole->second);
  } else if (word.size() <= kShort) {
    encode_short(word, ids);
  } else {
    encode_long(word, ids);
  }
}

void BytePairs::encode(std::string_view word, WordCache& cache, std::vector<std::uint32_t>& ids) const {
  if (word.size() > WordCache::kLongest) return encode(word, ids);
  const WordCache::Key key = WordCache::key_of(word);
  WordCache::Slot& slot = cache.slot_of(key);
  const WordCache::Key& held = slot.key;  // compared in line: memcmp would be a seventh of a build
  if (((held[0] ^ key[0]) | (held[1] ^ key[1]) | (held[2] ^ key[2]) | (held[3] ^ key[3])) == 0) {
    ids.insert(ids.end(), slot.ids.data(), slot.ids.data() + slot.count);
    return;
  }
  const std::size_t before = ids.size();
  encode(word, ids);
  const std::size_t count = ids.size() - before;
  if (count > WordCache::kMostIds) return;
  slot.key = key;
  slot.count = static_cast<std::uint32_t>(count);
  std::copy_n(ids.data() + before, count, slot.ids.begin());
}

void BytePairs::encode_short(std::string_view word, std::vector<std::uint32_t>& ids) const {
  std::array<std::uint32_t, kShort> tokens;
  std::array<std::uint64_t, kShort> pairs;  // of token i and the next
  std::size_t count = 0;
  for (const char byte : word) {
    const std::uint32_t id = bytes_[static_cast<std::uint8_t>(byte)];
    if (id != kNoId) tokens[count++] = id;
  }
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = find(tokens[i], tokens[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i] >> 32 < pairs[best] >> 32) best = i;
    }
    if (pairs[best] == kNone) break;
    tokens[best] = static_cast<std::uint32_t>(pairs[best]);
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      tokens[i] = tokens[i + 1];
      pairs[i - 1] = pairs[i];
    }
    if (best > 0) pairs[best - 1] = find(tokens[best - 1], tokens[best]);
    if (best + 1 < count) pairs[best] = find(tokens[best], tokens[best + 1]);
  }
  ids.insert(ids.end(), tokens.data(), tokens.data() + count);
}

void BytePairs::encode_long(std::string_view word, std::vector<std::uint32_t>& ids) const {
  struct Token {
    std::uint32_t id;
    std::size_t before, next;  // neighbours, kNobody at the ends
    bool alive = true;
  };
  // A pair as it was found: out of date once one of its two tokens has changed.
  using Found = std::tuple<std::uint64_t, std::size_t, std::uint64_t>;  // rank, place of the left one, both ids
  constexpr std::size_t kNobody = ~std::size_t{0};
  std::vector<Token> tokens;
  tokens.reserve(word.size());
  std::priority_queue<Found, std::vector<Found>, std::greater<>> queue;
  const auto look = [&](std::size_t left) {
    const std::size_t right = left == kNobody ? kNobody : tokens[left].next;
    if (right == kNobody) return;
    const std::uint64_t known = find(tokens[left].id, tokens[right].id);
    if (known != kNone) queue.emplace(known >> 32, left, pair_of(tokens[left].id, tokens[right].id));
  };
  for (const char byte : word) {
    const std::uint32_t id = bytes_[static_cast<std::uint8_t>(byte)];
    const std::size_t i = tokens.size();
    if (id != kNoId) tokens.push_back({id, i == 0 ? kNobody : i - 1, i + 1});
  }
  if (tokens.empty()) return;
  tokens.back().next = kNobody;
  for (std::size_t i = 0; i < tokens.size(); ++i) look(i);
  while (!queue.empty()) {
    const auto [rank, left, pair] = queue.top();
    queue.pop();
    Token& token = tokens[left];
    if (!token.alive || token.next == kNobody || pair_of(token.id, tokens[token.next].id) != pair) continue;
    Token& gone = tokens[token.next];
    gone.alive = false;
    token.id = static_cast<std::uint32_t>(find(static_cast<std::uint32_t>(pair >> 32), gone.id));
    token.next = gone.next;
    if (token.next != kNobody) tokens[token.next].before = left;
    look(token.before);
    look(left);
  }
  for (std::size_t i = 0; i != kNobody; i = tokens[i].next) ids.push_back(tokens[i].id);
}

}  // namespace shoestring
