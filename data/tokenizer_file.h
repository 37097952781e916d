// What a tokenizer.json of the library `tokenizers` says, where it describes byte-level BPE: Llama 3, Qwen 2 to 3,
// DeepSeek V3 and R1, SmolLM2. The file is foreign: it is bounded, and what it asks for that is not done here is
// refused by name rather than left out.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_pairs.h"
#include "data/text_split.h"
#include "data/tokenizer_added.h"

namespace shoestring {

struct TokenizerFile {
  std::vector<std::string> texts;  ///< the bytes of each id; empty for an id that nobody has
  std::vector<bool> control;       ///< by id: special, or not there
  std::vector<AddedToken> added;
  std::vector<std::unique_ptr<TextSplit>> splits;  ///< each cuts the pieces of the one before
  std::array<std::uint32_t, 256> bytes{};          ///< ids of single bytes; BytePairs::kNoId: has none
  std::vector<BytePairs::Merge> merges;            ///< in order
  bool nfc = false;                                ///< text is brought into NFC first
  bool whole_words = false;                        ///< [ignore_merges] a word that is a token becomes it unjoined
};

/// `beside`: tokens that other files of the folder add (tokens_beside); those that the file adds itself count for
/// nothing. Throws Error(bad_data) with `where`, the key, and what is wrong.
TokenizerFile read_tokenizer_file(std::string_view content, const std::string& where,
                                  std::span<const AddedToken> beside = {});

}  // namespace shoestring
