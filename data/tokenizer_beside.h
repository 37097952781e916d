// Tokens of a model that its tokenizer.json does not hold: transformers takes them from other files of the folder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer_added.h"

namespace shoestring {

/// The tokens of added_tokens_decoder in `settings`, the content of tokenizer_config.json, or, where that key is not
/// there, of `encoder`, that of added_tokens.json, by id. Either is empty where there is no such file. Throws
/// Error(bad_data) with `folder`, file and token for what is none.
std::vector<AddedToken> tokens_beside(std::string_view settings, std::string_view encoder, const std::string& folder);

}  // namespace shoestring
