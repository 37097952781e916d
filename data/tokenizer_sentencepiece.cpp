#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <mutex>
#include <unordered_map>

#include "data/characters.h"
#include "data/piece_pairs.h"
#include "data/sentencepiece_check.h"
#include "data/tokenizer.h"
#include "data/tokenizer_added.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {

std::unique_ptr<Tokenizer> sentencepiece_tokenizer(std::string model, const std::string& where);

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, how SentencePiece writes a space
constexpr std::size_t kEncodeBytes = 32 << 10;  // text is encoded in lines up to this much: time and memory stay linear
constexpr std::size_t kTrainBytes = 4000;       // one training sentence

// Length of the front part of `text` that SentencePiece keeps as it is, at most kEncodeBytes and the rest of a
// character, ending behind a line's end where there is one; 0 when the first byte must be spelt out.
std::size_t plain_bytes(std::string_view text) {
  const std::size_t most = std::min(text.size(), kEncodeBytes);
  std::size_t end = well_formed_bytes(text.substr(0, most));
  if (end < most && most < text.size()) {  // perhaps only a character that reaches beyond
    const std::size_t bytes = character_bytes(text.substr(end));
    if (end + bytes > most) end += bytes;
  }
  const std::size_t well_formed = end;
  end = std::min(end, text.substr(0, end).find('\0'));
  end = std::min(end, text.substr(0, end).find(kSpace));
  if (end < std::max(well_formed, most) || end == text.size()) return end;
  const std::size_t line_end = text.rfind('\n', end - 1);
  return line_end == std::string_view::npos ? end : line_end + 1;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string model, const std::string& where) : model_(std::move(model)) {
    const auto refuse = [&](const std::string& why) {
      fail(ExitCode::bad_data, "{}: not a tokenizer this program can use: {}", where, why);
    };
    if (const std::string unsound = sentencepiece_unsoundness(model_); !unsound.empty()) refuse(unsound);
    try {
      const auto status = processor_.LoadFromSerializedProto(model_);
      if (!status.ok()) refuse(status.ToString());
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {  // the library's tries throw what its statuses do not say
      refuse(error.what());
    }
    if (processor_.eos_id() < 0) refuse("the SentencePiece model has no end-of-sentence piece");
    byte_ids_.fill(-1);
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      const std::string& piece = processor_.IdToPiece(id);
      if (processor_.IsByte(id)) {
        const auto value = static_cast<std::size_t>(std::stoi(piece.substr(3, 2), nullptr, 16));
        byte_ids_[value] = id;
        texts_.emplace_back(1, static_cast<char>(value));
      } else if (processor_.IsControl(id) || processor_.IsUnknown(id)) {
        if (!piece.empty())
          specials_.push_back({.id = static_cast<std::uint32_t>(id), .content = piece, .special = true});
        texts_.emplace_back();
      } else {
        knows_space_ = knows_space_ || piece == kSpace;
        texts_.push_back(spaced(piece));
      }
    }
    if (std::count(byte_ids_.begin(), byte_ids_.end(), -1) > 0) {
      refuse("the SentencePiece model lacks byte fallback, so some text would be lost");
    }
  }

  /// From here on our merges encode, where they are the library's. Of a model that changes no text: they change none.
  void merge_without_library() {
    if (is_bpe()) pairs_ = PiecePairs::make(bpe_pieces(), byte_ids_);
  }

  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    std::vector<int> part;
    while (!text.empty()) {
      const std::size_t plain = plain_bytes(knows_space_ ? text : text.substr(0, text.find(' ')));
      if (plain == 0) {
        ids.push_back(static_cast<std::uint32_t>(byte_ids_[static_cast<std::uint8_t>(text[0])]));
        text.remove_prefix(1);
        continue;
      }
      if (pairs_ != nullptr) {
        pairs_->encode(text.substr(0, plain), ids);
      } else {
        const auto status = processor_.Encode(text.substr(0, plain), &part);
        check(status.ok(), "SentencePiece cannot encode: {}", status.ToString());
        for (const int id : part) ids.push_back(static_cast<std::uint32_t>(id));
      }
      text.remove_prefix(plain);
    }
  }

  void encode_prompt(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    encode_with_added(*this, text, specials_, ids);
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= texts_.size()) {
        fail(ExitCode::bad_data, "token id {} is outside the vocabulary of {}", id, texts_.size());
      }
      text += texts_[static_cast<std::size_t>(id)];
    }
    return text;
  }

  std::uint32_t vocabulary_size() const override { return static_cast<std::uint32_t>(texts_.size()); }

  SpecialIds special() const override {
    return {processor_.eos_id(), control_id("<|fim_begin|>"), control_id("<|fim_hole|>"), control_id("<|fim_end|>")};
  }

  std::int32_t control_id(std::string_view content) const override {
    const int id = processor_.PieceToId(content);
    return processor_.IsControl(id) && processor_.IdToPiece(id) == content ? id : -1;
  }

  std::string control_text(std::int32_t id) const override {
    return id >= 0 && id < processor_.GetPieceSize() && processor_.IsControl(id) ? processor_.IdToPiece(id) : "";
  }

  const std::string& file_name() const override { return name_; }
  const std::string& file_content() const override { return model_; }

  // Half a second for 128K pieces: once, not for every checkpoint.
  TokenizerFiles companion_files() const override {
    std::call_once(files_made_, [this] { files_ = make_companion_files(); });
    return files_;
  }

 private:
  TokenizerFiles make_companion_files() const {
    if (!is_bpe()) {  // readers that know SentencePiece take tokenizer.model
      const Json config = Json::object({{"tokenizer_class", "LlamaTokenizer"},
                                        {"legacy", false},
                                        {"add_bos_token", false},
                                        {"add_eos_token", false},
                                        {"add_prefix_space", false},
                                        {"eos_token", processor_.IdToPiece(processor_.eos_id())},
                                        {"clean_up_tokenization_spaces", false}});
      return {{"tokenizer_config.json", config.dump(1) + "\n"}};
    }
    return bpe_tokenizer_files(bpe_pieces());
  }

  BpePieces bpe_pieces() const {
    BpePieces bpe{.pieces = {},
                  .unknown = processor_.unk_id(),
                  .end_of_document = processor_.eos_id(),
                  .has_space = knows_space_};
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      bpe.pieces.push_back({processor_.IdToPiece(id), processor_.GetScore(id), kind_of(id)});
    }
    return bpe;
  }

  BpePieces::Kind kind_of(int id) const {
    if (processor_.IsByte(id)) return BpePieces::Kind::byte;
    const bool special = processor_.IsControl(id) || processor_.IsUnknown(id);
    return special ? BpePieces::Kind::special : BpePieces::Kind::text;
  }

  // The scores of BPE are the order of its merges: 0, -1, -2, ... Those of other models are logarithms. Finding the
  // merges takes the square of a piece's length.
  bool is_bpe() const {
    constexpr std::size_t kLongestPiece = 256;
    float next = 0;
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      if (kind_of(id) != BpePieces::Kind::text) continue;
      if (processor_.IsUnused(id)) return false;
      if (processor_.GetScore(id) != next || processor_.IdToPiece(id).size() > kLongestPiece) return false;
      next -= 1;
    }
    return true;
  }

  static std::string spaced(std::string piece) {
    for (std::size_t at = piece.find(kSpace); at != std::string::npos; at = piece.find(kSpace, at + 1)) {
      piece.replace(at, kSpace.size(), " ");
    }
    return piece;
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::string model_;
  std::string name_ = "tokenizer.model";
  std::array<int, 256> byte_ids_{};
  std::vector<std::string> texts_;     // by id
  std::vector<AddedToken> specials_;   // what a prompt may spell
  std::unique_ptr<PiecePairs> pairs_;  // null: the library encodes
  mutable std::once_flag files_made_;
  mutable TokenizerFiles files_;
  bool knows_space_ = false;  // one trained on text without a space would spell out kSpace instead
};

// What a model's normaliser may change: the front of a text (each part would gain a blank), blanks, line ends, case,
// characters that have a compatible or a composed form.
constexpr std::array<std::string_view, 5> kProbes = {"int a;", " x ", "a  b\n\tc\r\n", "Case",
                                                     "\xEF\xBC\xA1 \xEF\xAC\x81 e\xCC\x81"};

void check_lossless(const Tokenizer& tokenizer, const std::string& where) {
  for (const std::string_view probe : kProbes) {
    std::vector<std::uint32_t> ids;
    tokenizer.encode(probe, ids);
    const std::string back = tokenizer.decode(std::vector<std::int32_t>(ids.begin(), ids.end()));
    if (back == probe) continue;
    fail(ExitCode::bad_data,
         "{}: the SentencePiece model changes text: {} comes back as {}; train one with `shoestring data build`, or "
         "with spm_train --byte_fallback --normalization_rule_name=identity --add_dummy_prefix=false "
         "--remove_extra_whitespaces=false",
         where, Json(probe).dump(), Json(back).dump());
  }
}

// Feeds the trainer: texts cut into well-formed sentences at line ends.
class Sentences : public sentencepiece::SentenceIterator {
 public:
  Sentences(std::int64_t limit_bytes, const std::function<bool(std::string&)>& next_text)
      : left_(limit_bytes), next_text_(next_text) {
    Next();
  }
  bool done() const override { return done_; }
  const std::string& value() const override { return sentence_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    while (true) {
      if (at_ >= text_.size()) {
        at_ = 0;
        text_.clear();
        if (left_ <= 0 || !next_text_(text_)) {
          done_ = true;
          return;
        }
        continue;
      }
      const std::string_view rest = std::string_view(text_).substr(at_, kTrainBytes);
      std::size_t plain = plain_bytes(rest);
      if (plain == 0) {
        ++at_;
        continue;
      }
      if (plain == rest.size() && at_ + plain < text_.size()) {  // cut behind the last line end, if any
        const std::size_t line = rest.rfind('\n');
        if (line != std::string_view::npos) plain = line + 1;
      }
      sentence_ = rest.substr(0, plain);
      at_ += plain;
      left_ -= static_cast<std::int64_t>(plain);
      return;
    }
  }

 private:
  std::int64_t left_;
  const std::function<bool(std::string&)>& next_text_;
  std::string text_;
  std::string sentence_;
  std::size_t at_ = 0;
  bool done_ = false;
};

// What the library says, less the place in its own source and its condition ("Internal: src/x.cc(1) [a == b] why").
std::string_view reason_in(std::string_view text) {
  const std::size_t condition = text.find(") [");
  const std::size_t end = condition == std::string_view::npos ? condition : text.find("] ", condition);
  return end == std::string_view::npos ? text : text.substr(end + 2);
}

// Every character of the text that is common enough is a piece, beside the bytes: "... required_chars. 400 vs 3258.
// ..."
[[noreturn]] void refuse_training(std::uint32_t vocabulary, std::string_view said) {
  const std::string_view reason = reason_in(said);
  const std::size_t versus = reason.find(" vs ");
  std::uint32_t needed = 0;
  if (reason.find("required_chars") != std::string_view::npos && versus != std::string_view::npos) {
    std::from_chars(reason.data() + versus + 4, reason.data() + reason.size(), needed);
  }
  if (needed > vocabulary) {
    fail(ExitCode::bad_data,
         "a vocabulary of {} is too small for the characters of this text, which take {} pieces with the bytes; give "
         "--vocabulary {} or more ({} leaves room for merges), or take --tokenizer bytes",
         vocabulary, needed, needed, needed + needed / 4);
  }
  fail(ExitCode::bad_data, "training a tokenizer of {} pieces failed: {}; a smaller --vocabulary needs less text",
       vocabulary, reason);
}

}  // namespace

std::unique_ptr<Tokenizer> sentencepiece_tokenizer(std::string model, const std::string& where) {
  auto tokenizer = std::make_unique<SentencePieceTokenizer>(std::move(model), where);
  check_lossless(*tokenizer, where);
  tokenizer->merge_without_library();
  return tokenizer;
}

std::unique_ptr<Tokenizer> sentencepiece_reference(const Tokenizer& tokenizer) {
  return std::make_unique<SentencePieceTokenizer>(tokenizer.file_content(), "the reference");
}

std::unique_ptr<Tokenizer> train_sentencepiece(std::uint32_t vocabulary, std::int64_t limit_bytes,
                                               const std::function<bool(std::string& text)>& next_text) {
  Sentences sentences(limit_bytes, next_text);
  if (sentences.done()) {
    fail(
        ExitCode::bad_data,
        "no text is left to train a tokenizer on: none was drawn, or all was held out; raise --tokenizer-sample, lower "
        "--hold-out, or take --tokenizer bytes");
  }
  std::string model;
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocabulary)},
      {"byte_fallback", "true"},
      {"character_coverage", "0.9999"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"control_symbols", "<|fim_begin|>,<|fim_hole|>,<|fim_end|>"},
      {"max_sentence_length", std::to_string(2 * kTrainBytes)},
      {"num_threads", "1"},
      {"hard_vocab_limit", "false"},
      {"minloglevel", "2"},
  };
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &sentences, &model);
  if (!status.ok()) refuse_training(vocabulary, status.ToString());
  return sentencepiece_tokenizer(std::move(model), "the trained model");
}

}  // namespace shoestring
