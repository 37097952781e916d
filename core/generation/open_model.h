// A model to write texts with: a folder's weights, tokenizer and habits, or those of a run's checkpoint, which is one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/model/cached_forward.h"
#include "core/model/hugging_face_config.h"
#include "core/recipe/recipe.h"
#include "data/tokenizer.h"
#include "kernels/base/workers.h"

namespace shoestring {

struct OpenModelOptions {
  /// nothing: as the run computes that left the folder; in BF16 where no run did.
  std::optional<PrecisionPolicy> policy{};
  int threads = 0;            ///< 0: all cores
  std::int64_t slots = 1;     ///< texts at a time
  std::int64_t capacity = 0;  ///< tokens of each; cut to the model's positions, which 0 stands for
  std::int64_t rows = 256;    ///< tokens that are worked on at a time
  bool latents = false;       ///< CachedForwardOptions::latents, for models that have them
};

class OpenModel {
 public:
  /// Reads everything. Throws Error(bad_data, missing_input) as ImportFolder, plan_import and load_tokenizer do, and
  /// for a tokenizer with more pieces than the model has logits.
  OpenModel(const std::filesystem::path& folder, const OpenModelOptions& options);

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  CachedForward& forward() { return *forward_; }
  const PrecisionSpec& precision() const { return precision_; }
  std::int64_t parameters() const;

  /// Each ends a text: the tokenizer's end of a document, and what config.json and generation_config.json name.
  const std::vector<std::int32_t>& stop_ids() const { return stop_ids_; }
  /// What the folder's tokenizer puts in front of a text that is not a continuation (Llama's and DeepSeek's BOS);
  /// mostly nothing. Chat formats bring their own.
  const std::vector<std::int32_t>& leading_ids() const { return leading_ids_; }
  /// What stands for the beginning where a text has none: BOS, whether or not it is put in front of texts; the end of
  /// a document where there is no BOS.
  std::int32_t prefix_id() const { return prefix_id_; }
  /// `text` as a model reads it from its beginning: leading ids, then text; where both are nothing, the end of a
  /// document, behind which another begins.
  std::vector<std::int32_t> prompt(std::string_view text) const;

 private:
  void find_ids(const std::filesystem::path& folder, const ModelFileFacts& facts);

  PrecisionSpec precision_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::int32_t> stop_ids_;
  std::vector<std::int32_t> leading_ids_;
  std::int32_t prefix_id_ = 0;
  Workers workers_;
  Stream stream_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<CachedForward> forward_;
};

}  // namespace shoestring
