// The ids that stand around texts, as the files of a model's folder say.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace shoestring {

struct TextIds {
  /// Each ends a text: the tokenizer's end of a document, and what generation_config.json names or, where it names
  /// none, config.json.
  std::vector<std::int32_t> stop{};
  /// What the folder's tokenizer puts in front of a text that is not a continuation (Llama's and DeepSeek's BOS);
  /// mostly nothing. Chat formats bring their own.
  std::vector<std::int32_t> leading{};
  /// What stands for the beginning where a text has none: BOS, whether or not it is put in front of texts; the end of
  /// a document where there is no BOS.
  std::int32_t prefix = 0;
  /// What generation_config.json asks for beyond temperature and cuts, which other readers do and this program does
  /// not, and ids of ends that the tokenizer has not, a sentence a line; empty where there is nothing of that.
  std::string not_applied{};
};

/// The content of one of the folder's files; empty where it is not there.
using FolderFile = std::function<std::string(const std::string& name)>;

/// Reads config.json, generation_config.json, tokenizer.json and tokenizer_config.json. Throws Error(bad_data), naming
/// file and key, for what would change a prompt and is not done here (a token behind texts, a blank in front), for a
/// token in front of texts that the tokenizer has not, and as their readers do.
TextIds text_ids(const Tokenizer& tokenizer, const std::string& folder, const FolderFile& file);

}  // namespace shoestring
