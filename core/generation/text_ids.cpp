#include "core/generation/text_ids.h"

#include <algorithm>

#include "core/model/hugging_face_config.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

/// A token of tokenizer_config.json, as text or as an object; empty where it is neither.
std::string text_of_token(const Json* token) {
  if (token != nullptr && token->is_object()) token = token->find("content");
  return token != nullptr && token->is_text() ? token->text() : std::string();
}

/// The tokens that tokenizer.json's post-processor writes in front of a single text.
std::vector<std::string> leading_tokens(const Json& processor) {
  const Json* kind = processor.find("type");
  if (kind == nullptr || !kind->is_text()) return {};
  std::vector<std::string> found;
  if (kind->text() == "Sequence") {
    for (const Json& part : processor.at("processors").items()) {
      const std::vector<std::string> more = leading_tokens(part);
      found.insert(found.end(), more.begin(), more.end());
    }
  } else if (kind->text() == "TemplateProcessing") {
    for (const Json& part : processor.at("single").items()) {
      const Json* token = part.find("SpecialToken");
      if (token == nullptr) break;
      found.push_back(token->at("id").text());
    }
  }
  return found;
}

/// What is in front of texts, by its content; `begin` is the BOS of tokenizer_config.json.
std::vector<std::string> in_front(const Json& tokenizer, const Json& settings, const std::string& begin) {
  const Json* processor = tokenizer.find("post_processor");
  std::vector<std::string> leading = processor == nullptr ? std::vector<std::string>() : leading_tokens(*processor);
  const Json* adds = settings.find("add_bos_token");
  if (adds != nullptr && adds->is_flag() && adds->flag() && leading.empty() && !begin.empty()) leading.push_back(begin);
  return leading;
}

}  // namespace

TextIds text_ids(const Tokenizer& tokenizer, const std::string& folder, const FolderFile& file) {
  const auto read = [&](const char* name) {
    const std::string content = file(name);
    return content.empty() ? Json() : parse_json(content, folder + "/" + name);
  };
  const auto known = [&](std::int64_t id) { return id >= 0 && id < std::int64_t{tokenizer.vocabulary_size()}; };
  TextIds ids;
  const auto stop = [&](std::int64_t id) {
    const auto narrow = static_cast<std::int32_t>(id);
    if (known(id) && std::find(ids.stop.begin(), ids.stop.end(), narrow) == ids.stop.end()) ids.stop.push_back(narrow);
  };
  const ModelFileFacts facts = read_hugging_face_facts(file("config.json"));
  stop(tokenizer.special().end_of_document);
  for (const std::int64_t id : facts.eos_tokens) stop(id);
  const Json habits = read("generation_config.json");
  const Json* ends = habits.find("eos_token_id");
  if (ends != nullptr && ends->is_array()) {
    for (const Json& id : ends->items()) stop(id.whole());
  } else if (ends != nullptr && !ends->is_null()) {
    stop(ends->whole());
  }
  const Json settings = read("tokenizer_config.json");
  const std::string begin = text_of_token(settings.find("bos_token"));
  for (const std::string& content : in_front(read("tokenizer.json"), settings, begin)) {
    const std::int32_t id = tokenizer.control_id(content);
    if (id < 0) {
      fail(ExitCode::bad_data,
           "{}: the tokenizer puts {} in front of texts, but has no such token; copy its files again", folder,
           Json(content).dump());
    }
    ids.leading.push_back(id);
  }
  const std::int32_t named = begin.empty() ? -1 : tokenizer.control_id(begin);
  ids.prefix = named >= 0               ? named
               : known(facts.bos_token) ? static_cast<std::int32_t>(facts.bos_token)
                                        : tokenizer.special().end_of_document;
  return ids;
}

}  // namespace shoestring
