// Texts from prompts, many at a time: as many as there are slots, the next prompt taking the place of a text that ends.
//
// What a request gets depends on its prompt, settings and seed alone, not on the others beside it: rows of a batch do
// not know each other (cached_forward.h), and the i-th token is drawn with the i-th random number of the request's own
// seed.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/generation/sampler.h"
#include "core/model/cached_forward.h"

namespace shoestring {

struct GenerationRequest {
  std::vector<std::int32_t> prompt{};  ///< at least one token
  std::int64_t most_tokens = 0;
  SamplingSettings sampling{};
  std::uint64_t seed = 1;
  std::span<const std::int32_t> stop_ids{};  ///< each ends the text
};

enum class GenerationEnd : std::uint8_t {
  stop_id,  ///< the last of `ids`
  length,   ///< most_tokens, or no room behind them
  caller,   ///< on_token said so
};

struct Generated {
  std::vector<std::int32_t> ids;
  std::vector<double> log_probabilities;  ///< of each, under the whole softmax at temperature 1
  GenerationEnd end = GenerationEnd::length;
};

class Generator {
 public:
  /// Borrows `forward`, all of whose slots it uses. Draws ids below `vocabulary` only: a model may have more logits
  /// than the tokenizer has pieces.
  Generator(CachedForward& forward, std::int64_t vocabulary);

  /// Told of every token but a stop id as soon as it is drawn; false ends that text.
  using OnToken = std::function<bool(std::size_t request, std::int32_t id)>;
  /// In the order of the requests. Throws Error(usage) for a prompt that is empty or fills the capacity.
  std::vector<Generated> run(std::span<const GenerationRequest> requests, const OnToken& on_token);
  /// One request in slot 0, from which it takes over what the slot holds of its prompt: a conversation is read once.
  Generated run_one(const GenerationRequest& request, const std::function<bool(std::int32_t id)>& on_token);

 private:
  struct Text;
  void check_request(const GenerationRequest& request) const;
  void advance(std::vector<Text*>& live, const OnToken& on_token);
  bool finish_or_continue(Text& text, std::int32_t id, double log_probability, const OnToken& on_token) const;

  CachedForward& forward_;
  std::int64_t vocabulary_;
  std::vector<std::int32_t> held_;  ///< tokens of slot 0, after run_one
};

}  // namespace shoestring
