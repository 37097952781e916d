// The forward pass of generation: tokens that continue sequences whose earlier keys and values are kept.
//
//   CachedForward forward(model, {.slots = 2, .capacity = 512, .rows = 128});
//   forward.append(pieces);                           // whole prompts, or one token of each sequence, or both
//   forward.choose(rows, choose);                     // what follows any of the rows just appended
//
// A row's numbers depend on its own sequence alone, not on what else is in the batch nor on how a sequence was cut into
// calls. On a CPU they are, bit for bit, those of a training forward pass in FP32, BF16, and FP8 with scales of tiles
// that lie along a row (fp8_block, mxfp8); with one scale for a whole tensor (fp8_tensor) every row depends on all
// others, in training too. (On AMX training's attention must be pinned to its vector row for that: cached_attention.h.)
//
// A model may be on several ranks (ModelRanks). Those of a pipeline make the same calls with the same arguments and get
// the same answers. Those that share experts each have sequences of their own and pass every mixture together: one that
// has no more to append joins the others until none has (`join`).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/key_value_cache.h"
#include "core/model/transformer.h"
#include "parallel/communicator.h"

namespace shoestring {

struct CachedForwardOptions {
  std::int64_t slots = 1;     ///< sequences at a time
  std::int64_t capacity = 0;  ///< tokens of each; not more than the model's max_positions
  std::int64_t rows = 0;      ///< tokens of one call, at most
  bool latents = false;       ///< of latent attention keep the latents: less memory, not the bits of training
};

/// Where the parts of a model are. Communicators are borrowed.
struct ModelRanks {
  Communicator* pipeline = nullptr;  ///< nullptr: all stages are here
  std::vector<int> rank_of_stage;    ///< in `pipeline`, stage by stage of the model
  Communicator* experts = nullptr;   ///< nullptr: all experts are here
};

class CachedForward {
 public:
  /// Of a model with memory and prepared weights, or this rank's part of one, which it borrows. Any model will do; one
  /// that is not trained (TransformerOptions::trains) takes a fraction of the memory.
  CachedForward(Transformer& model, const CachedForwardOptions& options, ModelRanks ranks = {});
  /// What one takes, of a model that may not have memory yet.
  static std::int64_t bytes(const Transformer& model, const CachedForwardOptions& options);

  /// Tokens that are appended to a slot.
  struct Piece {
    std::int64_t slot = 0;
    std::span<const std::int32_t> tokens;
  };
  /// Runs them as rows, piece by piece. Throws Error(bug) where there is no room, or a token is none of the
  /// vocabulary's.
  void append(std::span<const Piece> pieces);
  /// Takes part in what ranks that share the experts append, until all of them are here. Collective over them.
  void join();

  /// Chooses what follows a row: is given its logits, [vocabulary].
  using Choose = std::function<std::int32_t(std::size_t index, std::span<const float> logits)>;
  /// For each of these rows of the last call, in order, what `choose` makes of its logits; returns ln p of what was
  /// chosen, as the loss of training computes it.
  std::vector<double> choose(std::span<const std::int32_t> rows, const Choose& choose);
  /// Their logits.
  std::vector<std::vector<float>> logits(std::span<const std::int32_t> rows);
  /// ln p(target) after each.
  std::vector<double> log_probabilities(std::span<const std::int32_t> rows, std::span<const std::int32_t> targets);

  std::int64_t length(std::int64_t slot) const { return cache_.length(slot); }
  /// Forgets all but the first `length` tokens of a slot.
  void keep(std::int64_t slot, std::int64_t length);
  std::int64_t capacity() const { return options_.capacity; }
  std::int64_t rows() const { return options_.rows; }
  std::int64_t slots() const { return options_.slots; }

 private:
  /// What a dry run finds.
  struct Needs {
    std::int64_t scratch = 0;
    std::int64_t saved = 0;
    std::int64_t all = 0;
  };
  static Needs needs(const Transformer& model, const CachedForwardOptions& options);
  CachedForward(Transformer& model, const CachedForwardOptions& options, ModelRanks ranks, const Needs& needs);
  bool anyone_appends(bool own);
  bool is_here(std::size_t stage) const;
  void run_stages(std::int64_t rows);
  void run_blocks(const TransformerStage& stage, std::int64_t first_layer, std::int64_t rows);
  TensorView head(std::span<const std::int32_t> rows);
  std::span<const float> in_host_memory(TensorView row);

  CachedForwardOptions options_;
  Transformer& model_;
  ModelRanks ranks_;
  KeyValueCache cache_;
  Arena scratch_;
  Arena saved_arena_;  ///< of one layer
  Saved saved_;
  Arena growing_;                   ///< of mixtures whose experts are shared
  Tensor streams_[2];               ///< [rows, hidden], in turns
  std::vector<std::int32_t> host_;  ///< ids, positions, slots
  Tensor places_;                   ///< i32 [3 * rows], likewise
  TensorView hidden_;               ///< [rows, hidden] behind what has run of them, of the last call
  Tensor chosen_;                   ///< [kHeadRows, hidden]
  Tensor logits_;                   ///< [kHeadRows, vocabulary]
  std::vector<float> row_;          ///< of them, in host memory
};

}  // namespace shoestring
