#include "core/generation/text_ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>

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

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  fail(ExitCode::bad_data, "{}: {}; take a sound copy, or another model", where, why);
}

const Json& part_of(const Json& json, std::string_view key, const std::string& where) {
  const Json* found = json.find(key);
  if (found == nullptr) refuse(where, fmt::format("{} is not there", key));
  return *found;
}

const std::vector<Json>& list_of(const Json& json, std::string_view key, const std::string& where) {
  const Json& list = part_of(json, key, where);
  if (!list.is_array()) refuse(where, fmt::format("{} is not a list", key));
  return list.items();
}

const std::string& text_in(const Json& json, std::string_view key, const std::string& where) {
  const Json& text = part_of(json, key, where);
  if (!text.is_text()) refuse(where, fmt::format("{} is not a text", key));
  return text.text();
}

std::int64_t token_id(const Json& json, const std::string& where) {
  if (!json.is_whole() || (json.number() > 0 && !json.is_count())) {
    refuse(where, json.dump().substr(0, 60) + " is no token id, which is a whole number");
  }
  return json.whole();
}

/// A flag that may be left out, or null. To transformers each word is true, "false" too.
bool is_on(const Json& json, std::string_view key, const std::string& where) {
  const Json* value = json.find(key);
  if (value == nullptr || value->is_null()) return false;
  if (!value->is_flag()) refuse(where, fmt::format("{} is neither true nor false", key));
  return value->flag();
}

/// The ids that a TemplateProcessing step writes in front of a single text.
std::vector<std::int64_t> ids_of_template(const Json& step, const std::string& where) {
  std::vector<std::int64_t> ids;
  bool seen = false;
  for (const Json& part : list_of(step, "single", where)) {
    const Json* token = part.find("SpecialToken");
    if (token == nullptr) {
      if (seen) refuse(where, "single has a text's place twice");
      seen = true;
      continue;
    }
    const std::string& name = text_in(*token, "id", where + ".single");
    if (seen) {
      refuse(where, fmt::format("puts {} behind every text, prompts too: a model would go on from an ended text",
                                Json(name).dump()));
    }
    const Json& known = part_of(part_of(step, "special_tokens", where), name, where + ".special_tokens");
    for (const Json& id : list_of(known, "ids", where + ".special_tokens")) {
      ids.push_back(token_id(id, where + ".special_tokens"));
    }
  }
  return ids;
}

/// The ids that tokenizer.json's post-processor writes in front of a single text.
std::vector<std::int64_t> leading_ids(const Json& step, const std::string& where) {
  if (step.is_null()) return {};
  const std::string& type = text_in(step, "type", where);
  if (type == "ByteLevel") return {};  // of offsets alone
  if (type == "TemplateProcessing") return ids_of_template(step, where);
  if (type != "Sequence") refuse(where, type + " is not known, only TemplateProcessing, ByteLevel and Sequence");
  std::vector<std::int64_t> ids;
  for (const Json& part : list_of(step, "processors", where)) {
    for (const std::int64_t id : leading_ids(part, where)) ids.push_back(id);
  }
  return ids;
}

// Classes that leave add_bos_token and add_eos_token to the post-processor of tokenizer.json.
constexpr std::array<std::string_view, 6> kPassingOver = {"PreTrainedTokenizerFast", "TokenizersBackend",
                                                          "Qwen2Tokenizer",          "Qwen2TokenizerFast",
                                                          "GPT2Tokenizer",           "GPT2TokenizerFast"};

/// Of tokenizer_config.json: whether `begin` stands in front of texts where the post-processor writes nothing.
bool adds_begin(const Json& settings, const Tokenizer& tokenizer, const std::string& where) {
  const Json* name = settings.find("tokenizer_class");
  const bool passes_over = name != nullptr && name->is_text() &&
                           std::find(kPassingOver.begin(), kPassingOver.end(), name->text()) != kPassingOver.end();
  if (!passes_over && is_on(settings, "add_eos_token", where)) {
    refuse(where, "add_eos_token puts a token behind every text, prompts too: a model would go on from an ended text");
  }
  if (tokenizer.file_name() == "tokenizer.json" && is_on(settings, "add_prefix_space", where)) {
    refuse(where, "add_prefix_space puts a blank in front of texts, which is not done here");
  }
  return !passes_over && is_on(settings, "add_bos_token", where);
}

/// Settings of generation_config.json that change which texts come, and the values that change nothing.
struct Habit {
  const char* key;
  double idle = 0;  ///< NaN: each number changes something
};
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<Habit, 22> kHabits = {{{"repetition_penalty", 1},
                                            {"encoder_repetition_penalty", 1},
                                            {"no_repeat_ngram_size"},
                                            {"encoder_no_repeat_ngram_size"},
                                            {"bad_words_ids"},
                                            {"force_words_ids"},
                                            {"suppress_tokens"},
                                            {"begin_suppress_tokens"},
                                            {"forced_bos_token_id", kNone},
                                            {"forced_eos_token_id", kNone},
                                            {"sequence_bias"},
                                            {"exponential_decay_length_penalty"},
                                            {"min_length"},
                                            {"min_new_tokens"},
                                            {"num_beams", 1},
                                            {"penalty_alpha"},
                                            {"typical_p", 1},
                                            {"epsilon_cutoff"},
                                            {"eta_cutoff"},
                                            {"guidance_scale", 1},
                                            {"watermarking_config"},
                                            {"stop_strings"}}};

std::string not_applied(const Json& habits, const std::string& where) {
  std::string list;
  for (const Habit& habit : kHabits) {
    const Json* value = habits.find(habit.key);
    if (value == nullptr || value->is_null()) continue;
    if ((value->is_number() && value->number() == habit.idle) ||
        ((value->is_array() || value->is_object()) && value->size() == 0))
      continue;
    list += fmt::format("{}{} = {}", list.empty() ? "" : ", ", habit.key, value->dump().substr(0, 60));
  }
  if (list.empty()) return {};
  return fmt::format("{}: {}: not done here, so that other texts come than where it is", where, list);
}

/// Fills in `stop`, and says of ids that end nothing.
void read_ends(const Json& habits, const ModelFileFacts& facts, const Tokenizer& tokenizer, const std::string& folder,
               TextIds& ids) {
  const Json* ends = habits.find("eos_token_id");
  const bool of_habits = ends != nullptr && !ends->is_null();
  const std::string where =
      fmt::format("{}/{}: eos_token_id", folder, of_habits ? "generation_config.json" : "config.json");
  std::vector<std::int64_t> named = {tokenizer.special().end_of_document};
  if (!of_habits) {
    named.insert(named.end(), facts.eos_tokens.begin(), facts.eos_tokens.end());
  } else if (ends->is_array()) {
    for (const Json& id : ends->items()) named.push_back(token_id(id, where));
  } else {
    named.push_back(token_id(*ends, where));
  }
  std::string beyond;
  for (const std::int64_t id : named) {
    if (id < 0) continue;  // how some say that there is none
    const auto narrow = static_cast<std::int32_t>(id);
    if (id >= std::int64_t{tokenizer.vocabulary_size()}) {
      beyond += fmt::format("{}{}", beyond.empty() ? "" : ", ", id);
    } else if (std::find(ids.stop.begin(), ids.stop.end(), narrow) == ids.stop.end()) {
      ids.stop.push_back(narrow);
    }
  }
  if (beyond.empty()) return;
  ids.not_applied += fmt::format("{}{}: {} is beyond the tokenizer's {} tokens: no text will end with it",
                                 ids.not_applied.empty() ? "" : "\n", where, beyond, tokenizer.vocabulary_size());
}

}  // namespace

TextIds text_ids(const Tokenizer& tokenizer, const std::string& folder, const FolderFile& file) {
  const auto read = [&](const char* name) {
    const std::string content = file(name);
    if (content.empty()) return Json();
    Json found = parse_json(content, folder + "/" + name);
    if (!found.is_object()) refuse(folder + "/" + name, "is no object");
    return found;
  };
  const auto known = [&](std::int64_t id) { return id >= 0 && id < std::int64_t{tokenizer.vocabulary_size()}; };
  TextIds ids;
  const ModelFileFacts facts = read_hugging_face_facts(file("config.json"));
  const Json habits = read("generation_config.json");
  ids.not_applied = not_applied(habits, folder + "/generation_config.json");
  read_ends(habits, facts, tokenizer, folder, ids);
  const Json settings = read("tokenizer_config.json");
  const std::string begin = text_of_token(settings.find("bos_token"));
  const Json rules = read("tokenizer.json");
  const Json* processor = rules.find("post_processor");
  const std::string where = folder + "/tokenizer.json: post_processor";
  for (const std::int64_t id : processor == nullptr ? std::vector<std::int64_t>() : leading_ids(*processor, where)) {
    if (!known(id)) refuse(where, fmt::format("puts {} in front of texts, which is no id of the tokenizer", id));
    ids.leading.push_back(static_cast<std::int32_t>(id));
  }
  const std::int32_t named = begin.empty() ? -1 : tokenizer.control_id(begin);
  const std::string settings_file = folder + "/tokenizer_config.json";
  if (adds_begin(settings, tokenizer, settings_file) && ids.leading.empty() && !begin.empty()) {
    if (named < 0) {
      refuse(settings_file,
             fmt::format("puts {} in front of texts, but the tokenizer has no such token", Json(begin).dump()));
    }
    ids.leading.push_back(named);
  }
  ids.prefix = named >= 0               ? named
               : known(facts.bos_token) ? static_cast<std::int32_t>(facts.bos_token)
                                        : tokenizer.special().end_of_document;
  return ids;
}

}  // namespace shoestring
