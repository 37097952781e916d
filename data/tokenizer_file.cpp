#include "data/tokenizer_file.h"

#include <algorithm>
#include <optional>
#include <span>
#include <unordered_map>

#include "data/byte_characters.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::size_t kMostSplits = 16;
constexpr std::int64_t kMostIds = 1 << 22;
constexpr std::size_t kLongestToken = 4096;

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  fail(ExitCode::bad_data, "{}: {}; take a sound copy, or a model with another tokenizer", where, why);
}

/// A flag that may be left out, or null.
bool is_on(const Json& json, std::string_view key, const std::string& where, bool otherwise = false) {
  const Json* value = json.find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_flag()) refuse(where, fmt::format("{} is neither true nor false", key));
  return value->flag();
}

const std::string& text_at(const Json& json, std::string_view key, const std::string& where) {
  const Json* value = json.find(key);
  if (value == nullptr || !value->is_text()) refuse(where, fmt::format("{} is not a text", key));
  return value->text();
}

std::uint32_t id_of(const Json& json, const std::string& where) {
  if (!json.is_count() || json.count() >= kMostIds) refuse(where, fmt::format("no id from 0 to {}", kMostIds - 1));
  return static_cast<std::uint32_t>(json.count());
}

/// The steps that a part of the file names: none, itself, or those of a Sequence.
std::vector<const Json*> steps_of(const Json& file, std::string_view part, std::string_view list,
                                  const std::string& where) {
  const Json* step = file.find(part);
  if (step == nullptr || step->is_null()) return {};
  if (text_at(*step, "type", where) != "Sequence") return {step};
  const Json* steps = step->find(list);
  if (steps == nullptr || !steps->is_array() || steps->size() > kMostSplits) {
    refuse(where, fmt::format("{} is not a list of at most {} steps", list, kMostSplits));
  }
  std::vector<const Json*> all;
  for (const Json& one : steps->items()) all.push_back(&one);
  return all;
}

class Reading {
 public:
  Reading(const Json& file, std::span<const AddedToken> beside, std::string where)
      : file_(file), beside_(beside), where_(std::move(where)) {}

  TokenizerFile read() && {
    const Json* model = file_.find("model");
    if (model == nullptr || model->text_or("type", "BPE") != "BPE") refuse(where_, "model.type is not BPE");
    read_normalizer();
    read_splits();
    read_vocabulary(*model);
    read_bytes();
    read_merges(*model);
    read_added();
    for (const AddedToken& token : beside_) take_beside(token);
    check_merges();
    return std::move(out_);
  }

 private:
  std::string place(std::string_view key) const { return fmt::format("{}: {}", where_, key); }

  void read_normalizer() {
    for (const Json* step : steps_of(file_, "normalizer", "normalizers", place("normalizer"))) {
      const std::string& type = text_at(*step, "type", place("normalizer"));
      if (type != "NFC") refuse(place("normalizer"), type + " is not known, only NFC");
      out_.nfc = true;
    }
  }

  void read_splits() {
    const std::string where = place("pre_tokenizer");
    bool byte_level = false;
    for (const Json* step : steps_of(file_, "pre_tokenizer", "pretokenizers", where)) {
      const std::string& type = text_at(*step, "type", where);
      if (byte_level) refuse(where, type + " behind ByteLevel, which must be the last step");
      if (type == "Split") {
        read_split(*step, where);
      } else if (type == "Digits" && is_on(*step, "individual_digits", where)) {
        out_.splits.push_back(split_digits());
      } else if (type == "ByteLevel") {
        byte_level = true;
        if (is_on(*step, "add_prefix_space", where)) refuse(where, "add_prefix_space would change the text");
        if (is_on(*step, "use_regex", where, true)) {
          out_.splits.push_back(split_by_pattern(std::string(patterns::gpt2), where));
        }
      } else {
        refuse(where, type + " is not known, only Split, Digits (individual_digits) and ByteLevel");
      }
    }
    if (!byte_level) {
      refuse(where,
             "there is no ByteLevel step: the file is not of the byte-level kind (of a SentencePiece model, give "
             "tokenizer.model)");
    }
  }

  void read_split(const Json& step, const std::string& where) {
    const std::string& behavior = text_at(step, "behavior", where);
    const bool inverted = is_on(step, "invert", where);
    if (behavior != "Isolated" || inverted) {
      refuse(where,
             fmt::format("Split with behavior {}{} is not known; Isolated is", behavior, inverted ? ", inverted" : ""));
    }
    const Json* pattern = step.find("pattern");
    if (pattern == nullptr || pattern->find("Regex") == nullptr) refuse(where, "Split without pattern.Regex");
    out_.splits.push_back(split_by_pattern(text_at(*pattern, "Regex", where), where));
  }

  void read_vocabulary(const Json& model) {
    for (const std::string_view key : {"byte_fallback"}) {
      if (is_on(model, key, place("model")))
        refuse(place("model"), fmt::format("{} belongs to SentencePiece models: give tokenizer.model", key));
    }
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* value = model.find(key);
      if (value != nullptr && !value->is_null() && !(value->is_text() && value->text().empty())) {
        refuse(place("model"), fmt::format("{} is not known", key));
      }
    }
    const Json* dropout = model.find("dropout");
    if (dropout != nullptr && !dropout->is_null() && !(dropout->is_number() && dropout->number() == 0)) {
      refuse(place("model.dropout"), dropout->dump() + " leaves merges out at random, which is not done here");
    }
    out_.whole_words = is_on(model, "ignore_merges", place("model"));
    const Json* vocabulary = model.find("vocab");
    if (vocabulary == nullptr || !vocabulary->is_object()) refuse(place("model.vocab"), "is not an object");
    const Json* added = file_.find("added_tokens");
    const std::size_t tokens = vocabulary->size() + (added == nullptr ? 0 : added->size());
    most_ids_ = static_cast<std::uint32_t>(std::min<std::size_t>(2 * tokens + 1024, kMostIds));
    ids_.reserve(vocabulary->size());
    for (const Json::Member& token : vocabulary->members()) {
      const std::string where = place("model.vocab");
      if (token.key.size() > kLongestToken) refuse(where, fmt::format("a token of {} bytes", token.key.size()));
      const std::uint32_t id = id_of(token.value, fmt::format("{}[{}]", where, Json(token.key).dump()));
      take(id, bytes_of_characters(token.key).value_or(token.key), where);
      ids_.emplace(token.key, id);
    }
  }

  void take(std::uint32_t id, std::string text, const std::string& where) {
    if (id >= most_ids_) refuse(where, fmt::format("id {} among so few tokens: ids leave holes", id));
    if (id >= out_.texts.size()) {
      out_.texts.resize(id + std::size_t{1});
      out_.control.resize(id + std::size_t{1}, true);
    }
    if (!out_.control[id]) refuse(where, fmt::format("two tokens with id {}", id));
    out_.control[id] = false;
    out_.texts[id] = std::move(text);
  }

  // SmolLM2 has no token for some bytes: controls and such as no UTF-8 holds.
  void read_bytes() {
    const std::array<std::string, 256> characters = byte_characters();
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto id = ids_.find(characters[byte]);
      out_.bytes[byte] = id == ids_.end() ? BytePairs::kNoId : id->second;
    }
  }

  void read_merges(const Json& model) {
    const Json* merges = model.find("merges");
    if (merges == nullptr || !merges->is_array()) refuse(place("model.merges"), "is not a list");
    out_.merges.reserve(merges->size());
    std::string merged;
    for (std::size_t i = 0; i < merges->size(); ++i) {
      const Json& merge = merges->items()[i];
      std::string_view left, right;
      if (merge.is_array() && merge.size() == 2 && merge.items()[0].is_text() && merge.items()[1].is_text()) {
        left = merge.items()[0].text();
        right = merge.items()[1].text();
      } else if (merge.is_text()) {
        const std::string_view both = merge.text();
        const std::size_t blank = both.find(' ');
        left = both.substr(0, blank);
        right = blank == std::string_view::npos ? std::string_view() : both.substr(blank + 1);
      }
      const auto id = [&](std::string_view text) {
        const auto found = ids_.find(text);
        if (!text.empty() && found != ids_.end()) return found->second;
        refuse(fmt::format("{}[{}]", place("model.merges"), i),
               fmt::format("{} is no token of the vocabulary, or the merge no pair", Json(text).dump()));
      };
      merged.assign(left).append(right);
      out_.merges.push_back({id(left), id(right), id(merged)});
    }
  }

  void read_added() {
    const Json* added = file_.find("added_tokens");
    if (added == nullptr || added->is_null()) return;
    const std::string where = place("added_tokens");
    if (!added->is_array()) refuse(where, "is not a list");
    for (const Json& token : added->items()) {
      const Json* number = token.find("id");
      const std::uint32_t id =
          id_of(number == nullptr ? Json() : Json(number->is_count() ? number->count() : -1), where);
      const std::string& content = text_at(token, "content", where);
      if (content.empty() || content.size() > kLongestToken) {
        refuse(where, fmt::format("token {} has {} bytes of content", id, content.size()));
      }
      const auto known = ids_.find(content);
      if (known == ids_.end()) {
        take(id, content, where);
      } else if (known->second != id) {
        refuse(where, fmt::format("{} has id {}, but {} in the vocabulary", Json(content).dump(), id, known->second));
      } else {
        out_.texts[id] = content;
      }
      out_.control[id] = is_on(token, "special", where);
      out_.added.push_back({.id = id,
                            .content = content,
                            .special = is_on(token, "special", where),
                            .normalized = is_on(token, "normalized", where),
                            .lstrip = is_on(token, "lstrip", where),
                            .rstrip = is_on(token, "rstrip", where),
                            .single_word = is_on(token, "single_word", where)});
    }
  }

  // As transformers adds it: one that the vocabulary has keeps its id, a new one takes the next.
  void take_beside(const AddedToken& token) {
    const auto same = [&](const AddedToken& other) { return other.content == token.content; };
    if (std::any_of(out_.added.begin(), out_.added.end(), same)) return;
    const auto known = ids_.find(token.content);
    const std::uint32_t id = known != ids_.end() ? known->second : static_cast<std::uint32_t>(out_.texts.size());
    if (id != token.id) {
      refuse(where_, fmt::format("{} has id {} in the files beside it, where transformers takes {}",
                                 Json(token.content).dump(), token.id, id));
    }
    if (known == ids_.end()) {
      out_.texts.push_back(token.content);
      out_.control.push_back(token.special);
    } else {
      out_.texts[id] = token.content;
      out_.control[id] = token.special;
    }
    out_.added.push_back(token);
  }

  void check_merges() const {
    for (const BytePairs::Merge& merge : out_.merges) {
      if (out_.control[merge.merged]) {
        refuse(place("model.merges"),
               "a merge gives the special token " + Json(out_.texts[merge.merged]).dump() + ": text could become it");
      }
    }
  }

  const Json& file_;
  std::span<const AddedToken> beside_;
  std::string where_;
  TokenizerFile out_;
  std::uint32_t most_ids_ = 0;
  std::unordered_map<std::string_view, std::uint32_t> ids_;  // keys lie in file_
};

}  // namespace

TokenizerFile read_tokenizer_file(std::string_view content, const std::string& where,
                                  std::span<const AddedToken> beside) {
  const Json file = parse_json(content, where);
  return Reading(file, beside, where).read();
}

}  // namespace shoestring
