// What a mixture of experts takes in memory: the takes of mixture_of_experts.cpp, added up.
#include <algorithm>

#include "core/model/mixture_of_experts.h"
#include "core/model/packed_rows.h"

namespace shoestring {

// What is kept of `rows` rows.
std::int64_t MixtureOfExperts::row_bytes(std::int64_t rows) const {
  const auto activations = [&](std::int64_t columns) { return arena_bytes(activation_, rows * columns); };
  std::int64_t bytes = arena_bytes(master_, rows) + cached_gate_up_bytes(gate_up_.precision(), rows, width_);
  if (gathers_again() && shared_out()) bytes += 2 * activations(hidden_);  // received rows and gradients
  if (!gathers_again()) {
    bytes += gate_up_.saved_bytes(rows) + down_.saved_bytes(rows);
    if (gate_up_.keeps_input()) bytes += activations(hidden_);
  }
  if (down_.keeps_input()) bytes += activations(width_);
  return bytes;
}

std::int64_t MixtureOfExperts::saved_bytes(const RunShape& run) const {
  const std::int64_t t = run.tokens;
  std::int64_t bytes = 3 * arena_bytes(DType::i32, slots(t)) +
                       arena_bytes(master_, slots(t)) +          // indices, plan, weights
                       2 * arena_bytes(master_, t * experts_) +  // scores, dlogits
                       arena_bytes(DType::i64, experts_) + arena_bytes(DType::i64, experts_ + 1);
  if (alpha_ != 0) bytes += arena_bytes(master_, run.sequences * experts_);
  if (!shared_out()) bytes += row_bytes(slots(t));
  if (packs_ && !shared_out()) bytes += 2 * arena_bytes(activation_, t * hidden_);  // x and dy as the experts see them
  if (shared_) bytes += shared_->saved_bytes(run);
  return bytes;
}

std::int64_t MixtureOfExperts::row_scratch_bytes(std::int64_t tokens, std::int64_t rows, int workers) const {
  const auto activations = [&](std::int64_t columns) { return arena_bytes(activation_, rows * columns); };
  const std::int64_t up = gate_up_.scratch_bytes(rows, workers);
  const std::int64_t down = down_.scratch_bytes(rows, workers);
  const std::int64_t uncached = cached_fp8_ ? activations(2 * width_) : 0;
  const std::int64_t wide = activations(hidden_);
  const std::int64_t narrow = activations(width_);
  std::int64_t sorted = 0;  // while rows travel: before or after the products
  if (shared_out()) sorted = arena_bytes(activation_, slots(tokens) * hidden_);
  if (shared_out() && packs_) {
    const auto packed = [&](std::int64_t count) { return arena_bytes(DType::u8, count * packed_row_bytes(hidden_)); };
    sorted = std::max(sorted, packed(tokens) + packed(rows) + packed(slots(tokens)));
  }
  if (shared_out()) sorted += arena_bytes(master_, slots(tokens));  // routing weights, beside them
  const std::int64_t forward = uncached + std::max(wide + std::max(sorted, up), narrow + wide + std::max(sorted, down));
  const std::int64_t backward = wide + arena_bytes(master_, rows) + 2 * arena_bytes(master_, slots(tokens)) + narrow +
                                std::max(wide + std::max(sorted, down), uncached + up);
  const std::int64_t weight = gathers_again() ? wide + std::max(up, down) : std::max(up, down);
  return std::max({forward, backward, weight});
}

std::int64_t MixtureOfExperts::scratch_bytes(const RunShape& run) const {
  const std::int64_t t = run.tokens;
  const std::int64_t routing = arena_bytes(master_, t * experts_) + 2 * arena_bytes(master_, slots(t)) +
                               std::max(arena_bytes(activation_, slots(t) * hidden_),
                                        packs_ ? arena_bytes(DType::u8, t * packed_row_bytes(hidden_)) : 0) +
                               router_.scratch_bytes(t, run.workers);
  std::int64_t most = routing;
  if (!shared_out()) most = std::max(most, row_scratch_bytes(t, slots(t), run.workers));
  if (shared_) most = std::max(most, shared_->scratch_bytes(run));
  return most;
}

std::int64_t MixtureOfExperts::even_beside_bytes(const RunShape& run) const {
  return shared_out() ? row_bytes(slots(run.tokens)) : 0;
}

std::int64_t MixtureOfExperts::even_growing_bytes(const RunShape& run) const {
  return shared_out() ? row_scratch_bytes(run.tokens, slots(run.tokens), run.workers) : 0;
}

std::int64_t MixtureOfExperts::prepared_bytes() const {
  return router_.prepared_bytes() + gate_up_.prepared_bytes() + down_.prepared_bytes() +
         (shared_ ? shared_->prepared_bytes() : 0);
}

}  // namespace shoestring
