// Internal to the SentencePiece tokenizer: what is looked at in a model's bytes before the library sees them.
#pragma once

#include <string>
#include <string_view>

namespace shoestring {

/// Why the library must not be given these bytes of a model; empty when it may. Refused are broken or nested-group
/// protobuf, a normalisation map (the library, 0.1.97, follows its offsets unchecked, and a tokenizer that loses
/// nothing has none), pieces that are empty, longer than 1024 bytes or not of a finite score, and more than 2^24 of
/// them.
std::string sentencepiece_unsoundness(std::string_view model);

}  // namespace shoestring
