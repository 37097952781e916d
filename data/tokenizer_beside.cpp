#include "data/tokenizer_beside.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "kernels/base/check.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

constexpr std::uint32_t kMostIds = 1 << 22;
constexpr std::size_t kMostTokens = 65536;
constexpr std::size_t kLongestToken = 4096;

[[noreturn]] void refuse(const std::string& where, std::string_view token, const std::string& why) {
  fail(ExitCode::bad_data, "{}: {}: {}; take a sound copy, or remove the token", where,
       Json(token.substr(0, 64)).dump(), why);
}

bool flag(const Json& token, std::string_view key, bool otherwise, const std::string& where, std::string_view name) {
  const Json* value = token.find(key);
  if (value == nullptr || value->is_null()) return otherwise;
  if (!value->is_flag()) refuse(where, name, fmt::format("{} is neither true nor false", key));
  return value->flag();
}

AddedToken token_of(std::uint32_t id, const std::string& content, const std::string& where) {
  if (content.empty() || content.size() > kLongestToken) {
    refuse(where, std::to_string(id), fmt::format("a token of {} bytes", content.size()));
  }
  return {.id = id, .content = content};
}

// {"32000": {"content": "<|im_start|>", "special": true, ...}}
std::vector<AddedToken> read_decoder(const Json& decoder, const std::string& where) {
  std::vector<AddedToken> tokens;
  for (const Json::Member& member : decoder.members()) {
    std::uint32_t id = 0;
    const char* end = member.key.data() + member.key.size();
    const auto [stop, error] = std::from_chars(member.key.data(), end, id);
    if (error != std::errc() || stop != end || id >= kMostIds) refuse(where, member.key, "is no id of a token");
    const Json* content = member.value.find("content");
    if (content == nullptr || !content->is_text()) refuse(where, member.key, "has no content, which is a text");
    AddedToken token = token_of(id, content->text(), where);
    const auto read_flag = [&](const char* key, bool otherwise) {
      return flag(member.value, key, otherwise, where, member.key);
    };
    token.special = read_flag("special", false);
    token.normalized = read_flag("normalized", !token.special);
    token.lstrip = read_flag("lstrip", false);
    token.rstrip = read_flag("rstrip", false);
    token.single_word = read_flag("single_word", false);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

/// Whether tokenizer_config.json names `content` for a purpose: as text, as an object, or in the list of others.
bool has_purpose(const Json& settings, std::string_view content) {
  constexpr std::array<std::string_view, 7> kPurposes = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                         "pad_token", "cls_token", "mask_token"};
  const auto is = [&](const Json* token) {
    if (token != nullptr && token->is_object()) token = token->find("content");
    return token != nullptr && token->is_text() && token->text() == content;
  };
  if (std::any_of(kPurposes.begin(), kPurposes.end(), [&](auto key) { return is(settings.find(key)); })) return true;
  const Json* others = settings.find("additional_special_tokens");
  return others != nullptr && others->is_array() &&
         std::any_of(others->items().begin(), others->items().end(), [&](const Json& one) { return is(&one); });
}

// {"<|im_start|>": 32000}
std::vector<AddedToken> read_encoder(const Json& encoder, const Json& settings, const std::string& where) {
  std::vector<AddedToken> tokens;
  for (const Json::Member& member : encoder.members()) {
    if (!member.value.is_count() || member.value.count() >= kMostIds) refuse(where, member.key, "has no id of a token");
    AddedToken token = token_of(static_cast<std::uint32_t>(member.value.count()), member.key, where);
    token.special = has_purpose(settings, token.content);
    token.normalized = !token.special;
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

std::vector<AddedToken> tokens_beside(std::string_view settings_text, std::string_view encoder_text,
                                      const std::string& folder) {
  const auto read = [&](std::string_view text, const char* name) {
    return text.empty() ? Json() : parse_json(text, folder + "/" + name);
  };
  const Json settings = read(settings_text, "tokenizer_config.json");
  const Json* decoder = settings.find("added_tokens_decoder");
  const Json encoder = decoder == nullptr ? read(encoder_text, "added_tokens.json") : Json();
  const std::string where =
      folder + (decoder == nullptr ? "/added_tokens.json" : "/tokenizer_config.json: added_tokens_decoder");
  const Json& list = decoder == nullptr ? encoder : *decoder;
  if (list.is_null()) return {};
  if (!list.is_object() || list.size() > kMostTokens) {
    fail(ExitCode::bad_data, "{}: is no object of at most {} tokens; take a sound copy", where, kMostTokens);
  }
  std::vector<AddedToken> tokens = decoder == nullptr ? read_encoder(list, settings, where) : read_decoder(list, where);
  std::sort(tokens.begin(), tokens.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return tokens;
}

}  // namespace shoestring
