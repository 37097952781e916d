// Proof that an epoch hands out every token once: a bit per token of one source, ticked as samples are consumed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/packing.h"

namespace shoestring {

/// For one (source, epoch). Memory: one bit per token.
class SampleLedger {
 public:
  explicit SampleLedger(std::int64_t tokens) : bits_((static_cast<std::uint64_t>(tokens) + 63) / 64), tokens_(tokens) {}

  /// Ticks the tokens of these pieces; a token that was ticked before counts as a repeat.
  void add(const std::vector<Piece>& pieces);

  std::int64_t seen_tokens() const { return seen_; }
  std::int64_t repeated_tokens() const { return repeated_; }
  std::int64_t missing_tokens() const { return tokens_ - seen_; }
  /// Every token exactly once.
  bool complete() const { return repeated_ == 0 && seen_ == tokens_; }

 private:
  std::vector<std::uint64_t> bits_;
  std::int64_t tokens_;
  std::int64_t seen_ = 0;
  std::int64_t repeated_ = 0;
};

}  // namespace shoestring
