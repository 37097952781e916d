// Text to token ids and back, without loss: decode(encode(text)) is `text`, byte for byte, whatever bytes it holds.
//
// Three kinds. `bytes`: an id is a byte; nothing to train. `sentencepiece`: a BPE model with byte fallback, trained
// here or brought along; bytes that are not UTF-8, and the one character SentencePiece uses for a space (U+2581), go
// through the byte pieces, since SentencePiece itself would replace them. `byte level`: the tokenizer.json of Llama 3,
// Qwen, DeepSeek and SmolLM2, brought along; where the file asks for NFC, as Qwen's do, that form of the text comes
// back; a byte that the file has no token for, as some controls in SmolLM2's, is left out as the library `tokenizers`
// does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer_json.h"

namespace shoestring {

/// Ids that stand for no text.
struct SpecialIds {
  std::int32_t end_of_document = 0;
  std::int32_t fim_begin = -1;  ///< fill-in-the-middle; -1: the tokenizer has none
  std::int32_t fim_hole = -1;
  std::int32_t fim_end = -1;
};

/// Immutable and thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Appends the ids of `text`: never a control token, whatever the text looks like, and none that a model puts in
  /// front.
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& ids) const = 0;
  /// The same for the prompt of a model: added and control tokens that are written in it become their ids, as they do
  /// for other readers (tokenizer_added.h).
  virtual void encode_prompt(std::string_view text, std::vector<std::uint32_t>& ids) const = 0;
  /// Special ids give no text. Throws Error(bad_data) for an id out of range.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;

  virtual std::uint32_t vocabulary_size() const = 0;
  virtual SpecialIds special() const = 0;
  /// The id of the added or control token that is written `content`; -1 where there is none. For who writes such tokens
  /// on purpose: text never becomes one.
  virtual std::int32_t control_id(std::string_view content) const = 0;
  /// How the id's token is written, where it is an added or control token; empty where it is none.
  virtual std::string control_text(std::int32_t id) const = 0;
  /// The file that defines it: name ("tokenizer.model", "byte_tokenizer.json", "tokenizer.json") and content.
  virtual const std::string& file_name() const = 0;
  virtual const std::string& file_content() const = 0;
  /// Names the tokenizer in shards and checkpoints: hash of file_content.
  std::string hash() const;
  /// What Hugging Face readers expect beside the file: tokenizer.json, tokenizer_config.json.
  virtual TokenizerFiles companion_files() const = 0;
};

std::unique_ptr<Tokenizer> byte_tokenizer();
/// Of a file, or of a folder the one in it (Error(missing_input) where there is none). By the file's content; throws
/// Error(bad_data) for one of no kind, a SentencePiece model without byte fallback or end-of-sentence piece, and a
/// tokenizer.json that asks for what is not done here (tokenizer_file.h).
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& place);
std::unique_ptr<Tokenizer> tokenizer_from(std::string content, const std::string& where);

/// Of `file` in a model's folder, for who writes prompts: with the tokens that other files of the folder add to a
/// tokenizer.json (tokens_beside), of ids below `vocabulary`. Throws as load_tokenizer does.
std::unique_ptr<Tokenizer> load_tokenizer_of_model(const std::filesystem::path& file, std::int64_t vocabulary);

/// The tokenizer file lying in `folder`, empty when there is none.
std::filesystem::path find_tokenizer(const std::filesystem::path& folder);

/// A SentencePiece tokenizer again, whose ids the library itself finds: what ours are held against.
std::unique_ptr<Tokenizer> sentencepiece_reference(const Tokenizer& tokenizer);

/// Trains a SentencePiece BPE model with byte fallback of `vocabulary` pieces. `next_text` yields pieces of text of any
/// length until it returns false; about `limit_bytes` of them are used. Single-threaded, so the result is reproducible.
std::unique_ptr<Tokenizer> train_sentencepiece(std::uint32_t vocabulary, std::int64_t limit_bytes,
                                               const std::function<bool(std::string& text)>& next_text);

}  // namespace shoestring
