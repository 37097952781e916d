// A model's architecture as Hugging Face's config.json, in both directions: the keys that every model has. Those of a
// family stand in its file (families/).
//
// Reading treats the file as hostile: every key's type and range is checked, and what this program cannot train (a
// sliding window, another activation, a bias where the family has none) is refused by name rather than ignored. The
// forms of transformers 4 and 5 are both read; the former is written, which both read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/config.h"

namespace shoestring {

/// What config.json says besides the architecture.
struct ModelFileFacts {
  std::int64_t bos_token = -1;             ///< -1: none
  std::vector<std::int64_t> eos_tokens{};  ///< each ends a text; empty: none
  std::string torch_dtype = "float32";     ///< of the weights beside it: "float32", "bfloat16"
  std::optional<std::int64_t>
      fp8_block{};  ///< weights in E4M3 with a scale for each block of that many rows and columns
};

/// The text of config.json: keys and values as transformers writes them for the family.
std::string write_hugging_face_config(const ModelConfig& config, const ModelFileFacts& facts);

/// What the file says of the keys of [model]; those that it does not hold (bias speed, weight of further tokens) keep
/// ModelSpec's defaults. Complete, but not checked against itself. Throws Error(bad_data) naming the key.
ModelSpec read_hugging_face_spec(std::string_view text);
/// The same, checked and resolved.
ModelConfig read_hugging_face_config(std::string_view text);
/// Throws Error(bad_data) for another quantisation than DeepSeek's blocks.
ModelFileFacts read_hugging_face_facts(std::string_view text);

}  // namespace shoestring
