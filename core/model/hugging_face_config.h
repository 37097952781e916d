// A model's architecture as Hugging Face's config.json, in both directions.
//
// Reading treats the file as hostile: every key's type and range is checked, and what this program cannot train (a
// sliding window, another activation, a bias where the family has none) is refused by name rather than ignored.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/model/config.h"

namespace shoestring {

/// What config.json says besides the architecture.
struct ModelFileFacts {
  std::int64_t bos_token = -1;          ///< -1: none
  std::int64_t eos_token = -1;          ///< -1: none
  std::string torch_dtype = "float32";  ///< of the weights beside it: "float32", "bfloat16"
};

/// The text of config.json: keys and values as transformers writes them for the family.
std::string write_hugging_face_config(const ModelConfig& config, const ModelFileFacts& facts);

/// Settings that the file does not hold (bias speed, weight of further tokens) keep ModelSpec's defaults. Throws
/// Error(bad_data) naming the key.
ModelConfig read_hugging_face_config(std::string_view text);
ModelFileFacts read_hugging_face_facts(std::string_view text);

}  // namespace shoestring
