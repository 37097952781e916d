#include "core/model/families/config_keys.h"

#include <fmt/core.h>

#include <utility>

#include "kernels/base/check.h"

namespace shoestring {
namespace {

std::string text_of(const Json& value) {
  std::string text = value.dump();
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

}  // namespace

ConfigKeys::ConfigKeys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail(ExitCode::bad_data, "{}: must hold a JSON object", where_);
}

const Json* ConfigKeys::find(const char* key) const {
  const Json* value = object_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool ConfigKeys::says_null(const char* key) const {
  const Json* value = object_.find(key);
  return value != nullptr && value->is_null();
}

template <class T>
T ConfigKeys::absent(const char* key, std::optional<T> otherwise) const {
  if (!otherwise) fail(ExitCode::bad_data, "{}: {} is missing; take the config.json of a whole model", where_, key);
  return *std::move(otherwise);
}

std::int64_t ConfigKeys::integer(const char* key, std::optional<std::int64_t> otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key, otherwise);
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (!value->is_whole() || !(value->number() < kMost && value->number() > -kMost)) {
    fail(ExitCode::bad_data, "{}: {} must be an integer, and of a size that a model can have, not {}", where_, key,
         text_of(*value));
  }
  return value->whole();
}

double ConfigKeys::number(const char* key, std::optional<double> otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key, otherwise);
  if (!value->is_number()) fail(ExitCode::bad_data, "{}: {} must be a number, not {}", where_, key, text_of(*value));
  return value->number();
}

bool ConfigKeys::boolean(const char* key, std::optional<bool> otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key, otherwise);
  if (!value->is_flag()) fail(ExitCode::bad_data, "{}: {} must be true or false, not {}", where_, key, text_of(*value));
  return value->flag();
}

std::string ConfigKeys::string(const char* key, std::optional<std::string> otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return absent(key, std::move(otherwise));
  if (!value->is_text()) fail(ExitCode::bad_data, "{}: {} must be a string, not {}", where_, key, text_of(*value));
  return value->text();
}

std::int64_t ConfigKeys::integer_under(const char* key, const char* other) const {
  if (find(key) == nullptr && find(other) != nullptr) return integer(other);
  const std::int64_t value = integer(key);
  if (find(other) != nullptr && integer(other) != value) {
    fail(ExitCode::bad_data, "{}: {} = {}, but {} = {}; choose another model", where_, key, value, other,
         integer(other));
  }
  return value;
}

void ConfigKeys::refuse_unless(bool supported, const char* key, const std::string& why) const {
  if (supported) return;
  const Json* value = object_.find(key);
  fail(ExitCode::bad_data, "{}: {} = {} is not supported{}{}; choose another model", where_, key,
       value ? text_of(*value) : "(absent)", why.empty() ? "" : ": ", why);
}

}  // namespace shoestring
