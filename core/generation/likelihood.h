// How likely a model holds a continuation of a context to be.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/model/cached_forward.h"

namespace shoestring {

struct Likelihood {
  double log_probability = 0;  ///< in nats, of all tokens
  bool greedy = true;          ///< each was the likeliest, ties to the lower id
  Likelihood& operator+=(const Likelihood& more) {
    log_probability += more.log_probability;
    greedy = greedy && more.greedy;
    return *this;
  }
};

/// Asks in slot 0. What a context has in common with the one before is not read again, so that the choices of a
/// question cost their own tokens only; no result depends on that.
class LikelihoodReader {
 public:
  /// Borrows `forward`. Ids from `vocabulary` on are no rivals of the likeliest.
  LikelihoodReader(CachedForward& forward, std::int64_t vocabulary);

  /// Both at least a token, the continuation at most `capacity` of them. Where together they are too long, the
  /// beginning of the context is left out. Throws Error(usage) for a continuation that is too long.
  Likelihood of(std::span<const std::int32_t> context, std::span<const std::int32_t> continuation);

  /// Of a whole text of any length, each token once: in windows of `capacity` behind each other, the first behind
  /// `prefix`, each other one with as much of the text before it as fits beside at least one token.
  Likelihood of_text(std::int32_t prefix, std::span<const std::int32_t> text);

  /// Somebody else has used the slot.
  void forget() { held_.clear(); }

 private:
  CachedForward& forward_;
  std::int64_t vocabulary_;
  std::vector<std::int32_t> held_;  ///< tokens of slot 0
};

}  // namespace shoestring
