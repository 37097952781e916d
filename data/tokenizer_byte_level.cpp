#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "data/characters.h"
#include "data/tokenizer.h"
#include "data/tokenizer_file.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {

std::unique_ptr<Tokenizer> byte_level_tokenizer(std::string content, const std::string& where,
                                                std::span<const AddedToken> beside);

namespace {

// Names that the families give to the same thing. A file does not say which of its tokens ends a document.
constexpr std::array<std::string_view, 5> kDocumentEnds = {"<|end_of_text|>", "<|endoftext|>",
                                                           "<\uFF5Cend\u2581of\u2581sentence\uFF5C>", "</s>", "<eos>"};
constexpr std::array<std::string_view, 3> kFimBegin = {"<|fim_begin|>", "<|fim_prefix|>",
                                                       "<\uFF5Cfim\u2581begin\uFF5C>"};
constexpr std::array<std::string_view, 3> kFimHole = {"<|fim_hole|>", "<|fim_suffix|>", "<\uFF5Cfim\u2581hole\uFF5C>"};
constexpr std::array<std::string_view, 3> kFimEnd = {"<|fim_end|>", "<|fim_middle|>", "<\uFF5Cfim\u2581end\uFF5C>"};

class ByteLevelTokenizer : public Tokenizer {
 public:
  ByteLevelTokenizer(std::string content, const std::string& where, std::span<const AddedToken> beside)
      : content_(std::move(content)),
        file_(read_tokenizer_file(content_, where, beside)),
        pairs_(file_.bytes, file_.merges, whole_words()) {
    special_.end_of_document = first_of(kDocumentEnds);
    if (special_.end_of_document < 0) {
      fail(ExitCode::bad_data, "{}: added_tokens holds none that ends a document; add one of {}", where,
           fmt::join(kDocumentEnds, ", "));
    }
    special_.fim_begin = first_of(kFimBegin);
    special_.fim_hole = first_of(kFimHole);
    special_.fim_end = first_of(kFimEnd);
    file_.merges = {};
    in_prompts_ = file_.added;
    for (AddedToken& token : in_prompts_) {
      if (token.normalized && file_.nfc && well_formed_bytes(token.content) == token.content.size()) {
        token.content = to_nfc(token.content);
      }
    }
  }

  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    const WordCaches::Lease cache(caches_);
    while (!text.empty()) {
      const std::size_t plain = well_formed_bytes(text);
      if (plain > 0) encode_plain(text.substr(0, plain), *cache, ids);
      if (plain == text.size()) return;
      pairs_.encode(text.substr(plain, 1), ids);
      text.remove_prefix(plain + 1);
    }
  }

  void encode_prompt(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    encode_with_added(*this, text, in_prompts_, ids, file_.nfc ? to_nfc : nullptr);
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || static_cast<std::size_t>(id) >= file_.texts.size()) {
        fail(ExitCode::bad_data, "token id {} is outside the vocabulary of {}", id, file_.texts.size());
      }
      if (!file_.control[static_cast<std::size_t>(id)]) text += file_.texts[static_cast<std::size_t>(id)];
    }
    return text;
  }

  std::uint32_t vocabulary_size() const override { return static_cast<std::uint32_t>(file_.texts.size()); }
  SpecialIds special() const override { return special_; }
  std::int32_t control_id(std::string_view content) const override {
    const auto same = [&](const AddedToken& token) { return token.content == content; };
    const auto found = std::find_if(file_.added.begin(), file_.added.end(), same);
    return found == file_.added.end() ? -1 : static_cast<std::int32_t>(found->id);
  }
  std::string control_text(std::int32_t id) const override {
    const auto same = [&](const AddedToken& token) { return token.id == static_cast<std::uint32_t>(id); };
    const auto found = std::find_if(file_.added.begin(), file_.added.end(), same);
    return found == file_.added.end() ? std::string() : found->content;
  }
  const std::string& file_name() const override { return name_; }
  const std::string& file_content() const override { return content_; }
  TokenizerFiles companion_files() const override {
    const Json config = Json::object({{"tokenizer_class", "PreTrainedTokenizerFast"},
                                      {"eos_token", file_.texts[static_cast<std::size_t>(special_.end_of_document)]},
                                      {"clean_up_tokenization_spaces", false}});
    return {{"tokenizer_config.json", config.dump(1) + "\n"}};
  }

 private:
  std::int32_t first_of(std::span<const std::string_view> names) const {
    for (const std::string_view name : names) {
      if (const std::int32_t id = control_id(name); id >= 0) return id;
    }
    return -1;
  }

  BytePairs::Words whole_words() const {
    BytePairs::Words words;
    if (!file_.whole_words) return words;
    words.reserve(file_.texts.size());
    std::vector<bool> added(file_.texts.size());
    for (const AddedToken& token : file_.added) added[token.id] = true;
    for (std::size_t id = 0; id < file_.texts.size(); ++id) {
      if (!added[id] && !file_.control[id]) words.emplace(file_.texts[id], static_cast<std::uint32_t>(id));
    }
    return words;
  }

  void encode_plain(std::string_view text, WordCache& cache, std::vector<std::uint32_t>& ids) const {
    if (file_.nfc && may_change_in_nfc(text)) {
      const std::string form = to_nfc(text);
      split(form, 0, cache, ids);
    } else {
      split(text, 0, cache, ids);
    }
  }

  // Cuts a piece by the splits from `level` on, and encodes what is left.
  void split(std::string_view text, std::size_t level, WordCache& cache, std::vector<std::uint32_t>& ids) const {
    if (level == file_.splits.size()) return pairs_.encode(text, cache, ids);
    const TextSplit& cut = *file_.splits[level];
    const bool last = level + 1 == file_.splits.size();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = cut.piece_end(text, at);
      const std::string_view piece = text.substr(at, end - at);
      if (last) {
        pairs_.encode(piece, cache, ids);
      } else {
        split(piece, level + 1, cache, ids);
      }
      at = end;
    }
  }

  std::string name_ = "tokenizer.json";
  std::string content_;
  TokenizerFile file_;
  BytePairs pairs_;  // some of its words lie in file_
  SpecialIds special_;
  std::vector<AddedToken> in_prompts_;  // their contents as the normaliser leaves them
  mutable WordCaches caches_;
};

}  // namespace

std::unique_ptr<Tokenizer> byte_level_tokenizer(std::string content, const std::string& where,
                                                std::span<const AddedToken> beside) {
  return std::make_unique<ByteLevelTokenizer>(std::move(content), where, beside);
}

}  // namespace shoestring
