#include "data/tokenizer_json.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "data/byte_characters.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

TokenizerFiles files_of(Json added, Json normalizer, Json before, Json decoder, Json model,
                        const std::string& end_of_document) {
  const Json file = Json::object({{"version", "1.0"},
                                  {"truncation", nullptr},
                                  {"padding", nullptr},
                                  {"added_tokens", std::move(added)},
                                  {"normalizer", std::move(normalizer)},
                                  {"pre_tokenizer", std::move(before)},
                                  {"post_processor", nullptr},
                                  {"decoder", std::move(decoder)},
                                  {"model", std::move(model)}});
  const Json config = Json::object({{"tokenizer_class", "PreTrainedTokenizerFast"},
                                    {"eos_token", end_of_document},
                                    {"clean_up_tokenization_spaces", false}});
  return {{"tokenizer.json", file.dump(1) + "\n"}, {"tokenizer_config.json", config.dump(1) + "\n"}};
}

Json special_token(std::size_t id, const std::string& text) {
  return Json::object({{"id", id},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
}

Json replace(std::string_view from, std::string_view to) {
  return Json::object({{"type", "Replace"}, {"pattern", Json::object({{"String", from}})}, {"content", to}});
}

}  // namespace

TokenizerFiles byte_tokenizer_files(std::span<const char* const> specials) {
  const std::array<std::string, 256> characters = byte_characters();
  Json vocabulary = Json::object();
  for (std::size_t byte = 0; byte < characters.size(); ++byte) vocabulary.add(characters[byte], byte);
  Json added = Json::array();
  for (std::size_t i = 0; i < specials.size(); ++i) added.push(special_token(characters.size() + i, specials[i]));
  const auto byte_level = [] {
    return Json::object(
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}});
  };
  Json model = Json::object(
      {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", std::move(vocabulary)}, {"merges", Json::array()}});
  return files_of(std::move(added), nullptr, byte_level(), byte_level(), std::move(model), specials[0]);
}

std::vector<PieceMerge> merges_of(const BpePieces& bpe) {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < bpe.pieces.size(); ++id) {
    if (bpe.pieces[id].kind == BpePieces::Kind::text) ids.emplace(bpe.pieces[id].text, id);
  }
  std::vector<PieceMerge> merges;
  for (const auto& [text, id] : ids) {
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut));
      const auto right = ids.find(text.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({left->second, right->second, id});
    }
  }
  std::sort(merges.begin(), merges.end(), [&](const PieceMerge& a, const PieceMerge& b) {
    const float a_score = bpe.pieces[a.merged].score;
    const float b_score = bpe.pieces[b.merged].score;
    if (a_score != b_score) return a_score > b_score;
    return a.left != b.left ? a.left < b.left : a.right < b.right;
  });
  return merges;
}

TokenizerFiles bpe_tokenizer_files(const BpePieces& bpe) {
  Json vocabulary = Json::object();
  Json added = Json::array();
  for (std::size_t id = 0; id < bpe.pieces.size(); ++id) {
    const BpePieces::Piece& piece = bpe.pieces[id];
    vocabulary.add(piece.text, id);
    if (piece.kind == BpePieces::Kind::special) added.push(special_token(id, piece.text));
  }
  Json merges = Json::array();
  for (const PieceMerge& merge : merges_of(bpe)) {
    merges.push(bpe.pieces[merge.left].text + " " + bpe.pieces[merge.right].text);
  }
  Json decoders = Json::array();
  if (bpe.has_space) decoders.push(replace(kSpace, " "));
  decoders.push(Json::object({{"type", "ByteFallback"}}));
  decoders.push(Json::object({{"type", "Fuse"}}));
  Json model = Json::object({{"type", "BPE"},
                             {"unk_token", bpe.pieces[static_cast<std::size_t>(bpe.unknown)].text},
                             {"fuse_unk", true},
                             {"byte_fallback", true},
                             {"vocab", std::move(vocabulary)},
                             {"merges", std::move(merges)}});
  return files_of(std::move(added), bpe.has_space ? replace(" ", kSpace) : Json(), nullptr,
                  Json::object({{"type", "Sequence"}, {"decoders", std::move(decoders)}}), std::move(model),
                  bpe.pieces[static_cast<std::size_t>(bpe.end_of_document)].text);
}

}  // namespace shoestring
