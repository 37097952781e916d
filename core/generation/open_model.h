// A model to write texts with: a folder's weights, tokenizer and habits, or those of a run's checkpoint, which is one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/generation/text_ids.h"
#include "core/model/cached_forward.h"
#include "core/recipe/recipe.h"
#include "data/tokenizer.h"
#include "kernels/base/limits.h"
#include "kernels/base/workers.h"

namespace shoestring {

struct OpenModelOptions {
  /// nothing: as the run computes that left the folder; in BF16 where no run did.
  std::optional<PrecisionPolicy> policy{};
  int threads = 0;                     ///< 0: all cores
  std::int64_t slots = 1;              ///< texts at a time
  std::int64_t capacity = 0;           ///< tokens of each; cut to the model's positions, which 0 stands for
  std::int64_t rows = 256;             ///< tokens that are worked on at a time
  bool latents = false;                ///< CachedForwardOptions::latents, for models that have them
  std::optional<MemoryLeft> memory{};  ///< nothing: what the system leaves this process
  /// Is told while the weights are read how far that is.
  std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)> progress{};
  /// Is told what the folder says and is not done (TextIds::not_applied).
  std::function<void(const std::string& text)> say{};
};

class OpenModel {
 public:
  /// Reads everything. Throws Error(bad_data, missing_input) as ImportFolder, plan_import and load_tokenizer do, and
  /// for a tokenizer with more pieces than the model has logits; Error(io), before the weights are read, where they and
  /// what is kept of texts do not fit into memory.
  OpenModel(const std::filesystem::path& folder, const OpenModelOptions& options);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  CachedForward& forward() { return *forward_; }
  const PrecisionSpec& precision() const { return precision_; }
  std::int64_t parameters() const;

  const TextIds& ids() const { return ids_; }
  /// `text` as a model reads it from its beginning: leading ids, then text, in which tokens may be spelt
  /// (Tokenizer::encode_prompt); where both are nothing, the end of a document, behind which another begins.
  std::vector<std::int32_t> prompt(std::string_view text) const;

 private:
  void check_memory(const MemoryLeft& left, const CachedForwardOptions& options) const;

  PrecisionSpec precision_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TextIds ids_;
  Workers workers_;
  Stream stream_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<CachedForward> forward_;
};

}  // namespace shoestring
